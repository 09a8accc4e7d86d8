"""What every Channel promises, tried on each kind, within one process and between two."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inlay.errors import TransferError
from inlay.transport import Channel, Frame, SharedChannel, StreamChannel, accept, offer

SMALL_RING = 256 * 1024

ECHO = """
import select, socket, sys
from inlay.errors import TransferError
from inlay.transport import StreamChannel, accept
sock = socket.socket(fileno=int(sys.argv[2]))
channel = accept(sock) if sys.argv[1] == "shared" else StreamChannel(sock)
poll = select.poll()
poll.register(channel.fileno(), select.POLLIN)
try:
    while True:
        poll.poll()
        while (frame := channel.receive()) is not None:
            kind, header, payload = frame.kind, frame.header, bytes(frame.payload)
            while not channel.send(kind, header, [payload]):
                poll.poll()
                assert channel.receive() is None, "one frame at a time"
except TransferError as error:
    sys.exit(0 if error.cause == "closed" else 3)
"""


def sockets(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind != "tcp":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    return left, right


def join(kind: str, left: socket.socket, right: socket.socket, *, size: int = SMALL_RING) -> tuple[Channel, Channel]:
    if kind != "shared":
        return StreamChannel(left, queue_limit=size), StreamChannel(right, queue_limit=size)
    return offer(left, size), accept(right)


@pytest.fixture(params=["unix", "tcp", "shared"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(kind: str) -> Iterator[tuple[Channel, Channel]]:
    left, right = join(kind, *sockets(kind))
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def peer(kind: str) -> Iterator[Callable[..., tuple[Channel, subprocess.Popen[bytes]]]]:
    """Starts another process that runs `code` with its end of a new channel."""
    made: list[tuple[Channel, subprocess.Popen[bytes]]] = []

    def begin(code: str, *, size: int = SMALL_RING) -> tuple[Channel, subprocess.Popen[bytes]]:
        left, right = sockets(kind)
        process = subprocess.Popen([sys.executable, "-c", code, kind, str(right.fileno())], pass_fds=[right.fileno()])
        right.close()
        channel: Channel = offer(left, size) if kind == "shared" else StreamChannel(left, queue_limit=size)
        made.append((channel, process))
        return channel, process

    yield begin
    for channel, process in made:
        channel.close()
        process.kill()
        process.wait()


def readable(channel: Channel, seconds: float = 20.0) -> bool:
    return bool(select.select([channel.fileno()], [], [], seconds)[0])


def wait(channel: Channel, *, sender: Channel | None = None) -> Frame:
    """The next frame; a `sender` in this process pushes on what it has queued meanwhile."""
    ends = [end.fileno() for end in (channel, sender) if end is not None]
    while (frame := channel.receive()) is None:
        assert select.select(ends, [], [], 20.0)[0], "nothing came"
        if sender is not None:
            assert sender.receive() is None
    return frame


def test_frames_arrive_whole_and_in_order(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    assert left.send(1, b"one", [b"abc", memoryview(b"defg")])
    assert left.send(2, b"")
    assert left.send(255, b"three", [b"", bytes(1000)])
    first = wait(right)
    assert (first.kind, first.header, bytes(first.payload)) == (1, b"one", b"abcdefg")
    second = wait(right)
    assert (second.kind, second.header, bytes(second.payload)) == (2, b"", b"")
    third = wait(right)
    assert (third.kind, third.header, bytes(third.payload)) == (255, b"three", bytes(1000))
    assert right.receive() is None


def test_both_directions_are_independent(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    assert left.send(1, b"to the right") and right.send(2, b"to the left")
    assert wait(left).header == b"to the left"
    assert wait(right).header == b"to the right"


def test_the_descriptor_is_readable_only_while_there_is_something_to_do(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    assert not readable(right, 0)
    assert left.send(1, b"x")
    assert readable(right)
    wait(right)
    assert right.receive() is None
    assert not readable(right, 0)
    assert not readable(left, 0)


def test_buffers_belong_to_the_caller_again_after_send(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    numbers = bytearray(os.urandom(4096))
    sent = []
    while left.send(1, b"", [numbers]):
        sent.append(bytes(numbers))
        numbers[:] = os.urandom(4096)
    assert len(sent) > 10
    for expected in sent:
        assert bytes(wait(right, sender=left).payload) == expected


def test_a_payload_ends_with_the_next_receive_and_cannot_be_written(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    left.send(1, b"", [b"abc"])
    payload = wait(right).payload
    assert payload.readonly
    assert right.receive() is None
    with pytest.raises(ValueError, match="released"):
        payload[0]


def test_a_payload_that_is_still_referred_to_harms_nobody(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    left.send(1, b"", [b"abc"])
    held = memoryview(wait(right).payload)
    left.send(2, b"next")
    assert wait(right).header == b"next"
    right.close()
    assert held.nbytes == 3


def test_a_full_channel_refuses_and_works_again_after_the_reader_drains(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    count = 0
    while left.send(1, str(count).encode(), [bytes(10_000)]):
        count += 1
        assert count < 10_000, "never full"
    assert count > 5
    assert not readable(left, 0)
    for number in range(count):
        assert wait(right, sender=left).header == str(number).encode()
    assert right.receive() is None
    assert left.send(1, b"again", [bytes(10_000)])
    assert wait(right, sender=left).header == b"again"


def test_the_descriptor_tells_a_refused_sender_that_there_is_room(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    number = 0
    while left.send(1, str(number).encode(), [bytes(50_000)]):
        number += 1
    assert not readable(left, 0)
    taken = [wait(right).header]
    done = threading.Event()

    def drain() -> None:
        try:
            while taken[-1] != b"last":
                taken.append(wait(right).header)
        finally:
            done.set()

    thread = threading.Thread(target=drain)
    thread.start()
    while not left.send(1, b"last", [bytes(50_000)]):
        assert readable(left), "room was never told"
        assert left.receive() is None
    while not done.wait(0.005):
        left.receive()
    thread.join()
    assert taken == [str(item).encode() for item in range(number)] + [b"last"]


def test_a_frame_that_is_too_large_is_refused_and_the_channel_stays_open(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    with pytest.raises(TransferError) as caught:
        left.send(1, b"", [bytes(64 * 1024 * 1024 + 1)])
    assert caught.value.cause == "size"
    assert left.send(1, b"fits")
    assert wait(right).header == b"fits"


def test_the_last_words_of_a_peer_are_heard_then_it_is_closed(pair: tuple[Channel, Channel]) -> None:
    left, right = pair
    left.send(1, b"last words")
    left.close()
    right.send(1, b"to nobody")
    assert readable(right)
    descriptor = right.fileno()
    assert wait(right).header == b"last words"
    with pytest.raises(TransferError) as caught:
        wait(right)
    assert caught.value.cause == "closed"
    with pytest.raises(TransferError) as caught:
        right.send(1, b"")
    assert caught.value.cause == "closed"
    assert right.fileno() == descriptor, "a loop must be able to forget it"


def test_closing_gives_every_descriptor_back(kind: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        left, right = join(kind, *sockets(kind))
        left.close()
        left.close()
        right.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("seed", [1, 2])
def test_random_frames_survive_the_way_to_another_process_and_back(peer: Callable[..., Any], seed: int) -> None:
    generator = random.Random(seed)
    channel, process = peer(ECHO)
    limits = (0, 1, 63, 64, 65, 5000, 100_000, SMALL_RING - 8192)
    waiting: list[tuple[int, bytes, bytes]] = []
    for _ in range(400):
        frame = (
            generator.randrange(256),
            generator.randbytes(generator.choice((0, 1, 40, 41, 4000))),
            generator.randbytes(generator.randint(0, generator.choice(limits))),
        )
        cut = generator.randint(0, len(frame[2]))
        # One frame in flight: the echo answers before it reads on, as its ring may be full.
        while not channel.send(frame[0], frame[1], [frame[2][:cut], frame[2][cut:]]):
            assert readable(channel)
            channel.receive()
        waiting.append(frame)
        answer = wait(channel)
        assert (answer.kind, answer.header, bytes(answer.payload)) == waiting.pop(0)
    channel.close()
    assert process.wait(30) == 0


def test_a_killed_peer_is_told_by_the_descriptor(peer: Callable[..., Any]) -> None:
    channel, process = peer(ECHO)
    assert channel.send(1, b"alive")
    assert wait(channel).header == b"alive"
    assert channel.receive() is None
    process.send_signal(signal.SIGKILL)
    assert readable(channel), "the death was not told"
    with pytest.raises(TransferError) as caught:
        wait(channel)
    assert caught.value.cause == "closed"


def test_a_peer_killed_while_its_channel_is_full_is_told(peer: Callable[..., Any]) -> None:
    channel, process = peer("import time; time.sleep(600)")
    while channel.send(1, b"", [bytes(20_000)]):
        pass
    assert not readable(channel, 0)
    process.kill()
    assert readable(channel)
    with pytest.raises(TransferError) as caught:
        wait(channel)
    assert caught.value.cause == "closed"


def test_the_kinds_are_channels() -> None:
    kinds: list[type[Channel]] = [StreamChannel, SharedChannel]
    assert all(callable(getattr(kind, name)) for kind in kinds for name in ("fileno", "send", "receive", "close"))
