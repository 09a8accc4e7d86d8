"""A hand-off over real TCP with something bad in between: bytes that change, links that end, links that only seem to live."""

from __future__ import annotations

import random
import select
import socket
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from handoff_world import CAPACITY, LEASE, World, binding

from inlay.transport import StreamChannel

TOKENS, CHUNK = 24, 4
FAULTS = ("none", "flip", "close", "stall", "lose")


class Between:
    """A middle man that passes bytes on, until `at` of them went to the destination; then it does what `fault` says."""

    def __init__(self, fault: str, at: int) -> None:
        self._fault, self._at = fault, at
        self.passed = 0
        mine, self.source_end = tcp_pair()
        other, self.destination_end = tcp_pair()
        self._ends = (mine, other)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        mine, other = self._ends
        while True:
            ready, _, _ = select.select([mine, other], [], [], 20)
            for end in ready:
                try:
                    data = end.recv(4096)
                    if not data:
                        return self._hang_up()
                    if end is mine:
                        data = self._touch(data)
                    (other if end is mine else mine).sendall(data)
                except OSError:
                    return self._hang_up()

    def _touch(self, data: bytes) -> bytes:
        before, self.passed = self.passed, self.passed + len(data)
        if self._fault == "none" or not before <= self._at < self.passed:
            return data if self._fault != "stall" or self.passed <= self._at else b""
        place = self._at - before
        match self._fault:
            case "flip":
                return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]
            case "lose":
                return data[:place] + data[place + 1 :]
            case "close":
                self._ends[1].sendall(data[:place])
                raise OSError
            case _:
                return data[:place]

    def _hang_up(self) -> None:
        for end in self._ends:
            end.close()

    def close(self) -> None:
        for end in (self.source_end, self.destination_end):
            end.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        return left, server.accept()[0]


class Networked(World):
    """A world whose wires are TCP connections through a middle man."""

    def __init__(self, between: Between) -> None:
        super().__init__()
        self.between = between

    def _connect(self, peer: str) -> None:
        self.into = StreamChannel(self.between.destination_end)  # type: ignore[assignment]
        self.sender.connected(peer, StreamChannel(self.between.source_end))

    def _next(self, wire, *, from_source):  # type: ignore[no-untyped-def]
        return wire.receive()

    def settle(self) -> None:
        """Pump until nothing has come for a moment."""
        while True:
            channels = [*self.sender.channels.values(), *([] if self.into is None else [self.into])]
            if not channels or not select.select(channels, [], [], 0.02)[0]:
                return
            self.pump(1)


def run(fault: str, at: int, seed: int) -> tuple[str, int]:
    """One hand-off; how it ended, and how many bytes went over before."""
    between = Between(fault, at)
    world = Networked(between)
    rng = np.random.default_rng(seed)
    it = binding(tokens=TOKENS)
    at_a, at_b = world.begin(it)
    world.settle()
    for start in range(0, TOKENS, CHUNK):
        world.chunk(it, at_a, start, CHUNK, rng)
        world.settle()
    for _ in range(20):  # forty seconds of the world's own clock: longer than any wait of either end
        world.pass_time(2.0)
    outcome = world.outcome()
    assert outcome and world.sender.open_count == world.receiver.open_count == 0, (fault, at)
    if outcome == "arrived":
        for mine, theirs in zip(world.a.pool.rows(at_a, TOKENS), world.b.pool.rows(at_b, TOKENS), strict=True):
            assert np.array_equal(mine, theirs), (fault, at)
    for channel in (*world.sender.channels.values(), *([] if world.into is None else [world.into])):
        channel.close()
    between.close()
    return outcome, between.passed


@pytest.mark.parametrize("fault", FAULTS[1:])
def test_wherever_a_byte_changes_goes_missing_or_is_the_last_the_transfer_ends_and_no_row_is_wrong(fault) -> None:
    outcome, size = run("none", 0, 0)
    assert outcome == "arrived" and size > TOKENS * 40
    rng = random.Random(FAULTS.index(fault))
    ends = Counter(run(fault, rng.randrange(size), seed)[0] for seed in range(25))
    print(fault, dict(ends))
    assert ends["arrived"] < 25 and set(ends) <= {"arrived", "channel_lost", "checksum", "lease"}
    assert CAPACITY >= TOKENS and LEASE * 4 <= 40
