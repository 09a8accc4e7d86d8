"""The door: who connects, in which way, and what happens to those who may not."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inlay.transport import KV, STAGE, Arrival, Door, SharedChannel, StreamChannel, shake_hands

KEY = bytes(range(32))


@contextlib.contextmanager
def door(path: Path, name: str, **options: object) -> Iterator[Door]:
    it = Door(path, name=name, key=KEY, **options)  # type: ignore[arg-type]
    try:
        yield it
    finally:
        it.close()


def next_arrival(it: Door, seconds: float = 10.0) -> Arrival:
    ready, _, _ = select.select([it], [], [], seconds)
    assert ready, "nobody came"
    [arrival] = it.take()
    return arrival


def close(*arrivals: Arrival) -> None:
    for item in arrivals:
        if item.channel is not None:
            item.channel.close()


@pytest.mark.parametrize("kind", [KV, STAGE])
def test_two_processes_get_shared_memory_and_each_knows_the_others_name_and_the_kind(tmp_path, kind) -> None:
    with door(tmp_path / "a", "cpu:0/x") as first, door(tmp_path / "b", "cpu:1/y") as second:
        first.connect("cpu:1/y", tmp_path / "b", kind=kind)
        out, into = next_arrival(first), next_arrival(second)
        assert (out.peer, out.incoming, out.kind) == ("cpu:1/y", False, kind)
        assert (into.peer, into.incoming, into.kind) == ("cpu:0/x", True, kind)
        assert isinstance(out.channel, SharedChannel) and isinstance(into.channel, SharedChannel)
        assert out.channel.send(9, b"hello", [b"data"])
        select.select([into.channel], [], [], 5)
        frame = into.channel.receive()
        assert frame is not None and (frame.kind, frame.header, bytes(frame.payload)) == (9, b"hello", b"data")
        del frame
        close(out, into)


def test_the_controlling_process_gets_its_stream(tmp_path) -> None:
    with door(tmp_path / "a", "cpu:0/x") as it:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(tmp_path / "a"))
        assert shake_hands(sock, key=KEY, name="engine", connects=True).name == "cpu:0/x"
        arrival = next_arrival(it)
        assert (arrival.peer, arrival.incoming, arrival.kind) == ("engine", True, "")
        assert isinstance(arrival.channel, StreamChannel)
        close(arrival)
        sock.close()


def test_a_stranger_and_an_unknown_kind_are_told_with_the_reason_and_get_no_channel(tmp_path) -> None:
    with door(tmp_path / "a", "cpu:0/x", kinds=(KV,)) as it, door(tmp_path / "b", "cpu:1/y") as other:
        other.connect("cpu:0/x", tmp_path / "a", kind=STAGE)
        refused = next_arrival(it)
        assert refused.channel is None and "'stage:cpu:1/y'" in refused.reason
        close(next_arrival(other))
        stranger = Door(tmp_path / "c", name="z", key=bytes(32))
        stranger.connect("cpu:0/x", tmp_path / "a", kind=KV)
        for end in (it, stranger):
            arrival = next_arrival(end)
            assert arrival.channel is None and "key" in arrival.reason
        stranger.close()


def test_a_peer_that_is_not_there_is_a_failure_at_once_or_after_the_seconds_given(tmp_path) -> None:
    with door(tmp_path / "a", "cpu:0/x") as it:
        it.connect("cpu:1/y", tmp_path / "b", kind=STAGE)
        arrival = next_arrival(it)
        assert arrival.channel is None and arrival.peer == "cpu:1/y" and arrival.kind == STAGE
        begun = time.monotonic()
        it.connect("cpu:1/y", tmp_path / "b", kind=STAGE, seconds=0.3)
        assert next_arrival(it).channel is None and time.monotonic() - begun >= 0.3


def test_a_peer_that_comes_late_is_waited_for(tmp_path) -> None:
    made: list[Door] = []
    with door(tmp_path / "a", "cpu:0/x") as it:
        it.connect("cpu:1/y", tmp_path / "b", kind=STAGE, seconds=10.0)
        timer = threading.Timer(0.3, lambda: made.append(Door(tmp_path / "b", name="cpu:1/y", key=KEY)))
        timer.start()
        arrival = next_arrival(it)
        assert arrival.channel is not None
        timer.join()
        close(arrival, next_arrival(made[0]))
        made[0].close()
