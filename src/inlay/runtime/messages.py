"""Messages between two processes through our own shared-memory channel, there and acknowledged, as a program would do it.

`send` and `echo` are the programs of the two processes, which `runtime.machine` starts. Every microsecond that Python spends
in the channel is counted. Timing is `runtime.measure`'s.
"""

from __future__ import annotations

import select
import socket
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inlay.backends import Array
from inlay.errors import TransferError
from inlay.runtime.measure import time_runs
from inlay.transport import Frame, SharedChannel, accept, offer

SMALL, LARGE = 32 << 10, 8 << 20
SAMPLES = 31
MESSAGE_FRAME, ACKNOWLEDGEMENT_FRAME = 1, 2


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one message with its acknowledgement, each sample, by the bytes of the message."""

    small: list[float]
    large: list[float]


def send(config: dict[str, Any]) -> int:
    """Time messages to the process at the other end of the socket `config["socket"]`; write Taken to `config["result"]`."""
    channel = offer(socket.socket(fileno=config["socket"]))
    try:
        taken = Taken(small=round_trips(channel, SMALL), large=round_trips(channel, LARGE))
    finally:
        channel.close()
    part = Path(config["result"] + ".part")
    part.write_bytes(msgspec.json.encode(taken))
    part.replace(config["result"])
    return 0


def echo(config: dict[str, Any]) -> int:
    """Take every message out into an array and acknowledge it, until the other end goes."""
    channel = accept(socket.socket(fileno=config["socket"]), seconds=60.0)
    target = np.empty(LARGE, np.uint8)
    try:
        while True:
            payload = _wait(channel).payload
            target[: len(payload)] = payload
            _send(channel, ACKNOWLEDGEMENT_FRAME, [])
    except TransferError as error:
        if error.cause != "closed":
            raise
    return 0


def round_trips(channel: SharedChannel, size: int) -> list[float]:
    """Seconds of one message of `size` bytes and its acknowledgement, each sample."""
    message = np.random.default_rng(size).integers(0, 256, size, np.uint8)

    def run() -> None:
        _send(channel, MESSAGE_FRAME, [message])
        _wait(channel)

    return time_runs(run, samples=SAMPLES, warm_up=3)


def _send(channel: SharedChannel, kind: int, payload: list[Array]) -> None:
    while not channel.send(kind, b"", payload):
        _readable(channel)
        channel.receive()


def _wait(channel: SharedChannel) -> Frame:
    while (frame := channel.receive()) is None:
        _readable(channel)
    return frame


def _readable(channel: SharedChannel) -> None:
    """Sleep until there is something to do."""
    select.select([channel.fileno()], [], [])
