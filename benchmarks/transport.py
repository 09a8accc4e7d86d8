"""Frames between two processes of one host: through a shared memory ring, over a unix socket, over TCP at the loopback address.

    python benchmarks/transport.py

Round trips: one way carries the payload, the answer is an empty frame; medians in microseconds. Streams: many frames one
way and one answer after the last; bytes a second. `checked` is a stream whose reader copies each payload and takes its
crc32, as the reader of a KV hand-off does. `shared` copies a payload into the ring and reads it in place.

The kinds take turns, so that a change of load meets all of them. Writes `results/transport.{json,md}`.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from measuring import RESULTS, environment, table, write_result

from inlay.errors import TransferError
from inlay.transport import Channel, Frame, StreamChannel, accept, offer

KINDS = ("shared", "unix", "tcp")
SIZES = (0, 32 * 1024, 1024 * 1024)
FRAME_BYTES = 2 * 1024 * 1024
STREAM_BYTES = 128 * 1024 * 1024
READINGS = ("in place", "checked")
ECHO, TAKE, CHECK = 1, 2, 3
"""Frame kinds: answer it; take it; copy it and take its checksum."""


def wait(channel: Channel, poll: select.poll) -> Frame:
    """The next frame."""
    while (frame := channel.receive()) is None:
        poll.poll()
    return frame


def give(channel: Channel, poll: select.poll, kind: int, payload: list[memoryview]) -> None:
    """Send a frame, as soon as there is room for it."""
    while not channel.send(kind, b"", payload):
        poll.poll()
        if channel.receive() is not None:
            raise AssertionError("an answer came in the middle of a stream")


def watch(channel: Channel) -> select.poll:
    """A poll object for one channel."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    return poll


def answer(kind: str, descriptor: int) -> None:
    """The other process: answers frames that ask for it with an empty one."""
    sock = socket.socket(fileno=descriptor)
    channel: Channel = accept(sock) if kind == "shared" else StreamChannel(sock)
    poll = watch(channel)
    try:
        while True:
            frame = wait(channel, poll)
            if frame.kind == ECHO:
                channel.send(ECHO, b"")
            elif frame.kind == CHECK:
                zlib.crc32(bytes(frame.payload))
    except TransferError as error:
        if error.cause != "closed":
            raise


def sockets(kind: str) -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    if kind != "tcp":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        return left, server.accept()[0]


def connect(kind: str) -> tuple[Channel, subprocess.Popen[bytes]]:
    """A channel to a new process that answers."""
    left, right = sockets(kind)
    command = [sys.executable, __file__, "--answer", kind, "--descriptor", str(right.fileno())]
    process = subprocess.Popen(command, pass_fds=[right.fileno()])
    right.close()
    return (offer(left) if kind == "shared" else StreamChannel(left)), process


Ends = dict[str, tuple[Channel, select.poll]]


def round_trips(ends: Ends, rounds: int, repeats: int) -> list[dict[str, Any]]:
    """One record a kind and size."""
    records: list[dict[str, Any]] = []
    for size in SIZES:
        payload = [memoryview(os.urandom(size))]
        times: dict[str, list[float]] = {kind: [] for kind in ends}
        for turn in range(rounds + 1):
            for kind, (channel, poll) in ends.items():
                for _ in range(repeats):
                    begin = time.perf_counter()
                    give(channel, poll, ECHO, payload)
                    wait(channel, poll)
                    if turn:  # the first turn warms up
                        times[kind].append(time.perf_counter() - begin)
        for kind, values in times.items():
            cuts = statistics.quantiles(values, n=10)
            record = {"kind": kind, "bytes": size, "count": len(values), "median_us": statistics.median(values) * 1e6}
            records.append(record | {"p10_us": cuts[0] * 1e6, "p90_us": cuts[-1] * 1e6})
    return records


def streams(ends: Ends, rounds: int) -> list[dict[str, Any]]:
    """One record a kind and way of reading."""
    payload = [memoryview(os.urandom(FRAME_BYTES))]
    speeds: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for kind, (channel, poll) in ends.items():
            for reading, number in zip(READINGS, (TAKE, CHECK), strict=True):
                begin = time.perf_counter()
                for _ in range(STREAM_BYTES // FRAME_BYTES):
                    give(channel, poll, number, payload)
                give(channel, poll, ECHO, [])
                wait(channel, poll)
                if turn:
                    seconds = time.perf_counter() - begin
                    speeds.setdefault((kind, reading), []).append(STREAM_BYTES / seconds)
    return [
        {"kind": kind, "reading": reading, "count": len(values), "bytes_per_second": statistics.median(values)}
        for (kind, reading), values in speeds.items()
    ]


def measure(rounds: int, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Both tables, over one process a kind."""
    made = {kind: connect(kind) for kind in KINDS}
    ends = {kind: (channel, watch(channel)) for kind, (channel, _) in made.items()}
    found = {"round_trips": round_trips(ends, rounds, repeats), "streams": streams(ends, rounds)}
    for channel, process in made.values():
        channel.close()
        process.wait()
    return found


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """Both as tables."""
    trips = [
        [f"{size} bytes", *(f"{item['median_us']:.1f}" for item in found["round_trips"] if item["bytes"] == size)]
        for size in SIZES
    ]
    ways = [
        [reading, *(f"{item['bytes_per_second'] / 1e9:.2f}" for item in found["streams"] if item["reading"] == reading)]
        for reading in READINGS
    ]
    return "\n\n".join(
        (
            "A round trip carries the payload one way; its answer is an empty frame. *Checked*: the reader copies each payload "
            "and takes its crc32, as the reader of a KV hand-off does.",
            table(["round trip, median us", *KINDS], trips),
            table([f"stream of {FRAME_BYTES >> 20} MiB frames, GB/s", *KINDS], ways),
        )
    )


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--answer", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer, options.descriptor)
        return
    facts = environment()
    found = measure(options.rounds, options.repeats)
    write_result("transport", title="Transport on one host", facts=facts, records=found, text=page(found), folder=options.out)


if __name__ == "__main__":
    main()
