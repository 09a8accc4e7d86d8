"""The hand-over of shared memory: what a peer offers is checked before it is mapped, and nothing leaks."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Callable

import pytest

from inlay.errors import TransferError, UnsupportedError
from inlay.transport import SharedChannel, accept, offer
from inlay.transport.memory import _GREETING, _MAGIC, _create_memory
from inlay.transport.ring import DATA_START

SIZE = mmap.PAGESIZE


def greeting(magic: int = _MAGIC, version: int = 1, count: int = 6, size: int = SIZE) -> bytes:
    return _GREETING.pack(magic, version, count, size)


def unsealed(size: int) -> int:
    memory = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    return memory


def half_sealed(size: int) -> int:
    memory = unsealed(size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return memory


def plain_file(size: int) -> int:
    memory = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(memory, size)
    return memory


def accept_forged(data: bytes, parts: list[int]) -> TransferError:
    """What `accept` says to this hand-over; fails when it leaks a descriptor."""
    left, right = socket.socketpair()
    socket.send_fds(left, [data], parts)
    for part in parts:
        os.close(part)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TransferError) as caught:
        accept(right, seconds=5.0)
    assert len(os.listdir("/proc/self/fd")) == before - 1, "only the socket that accept owns may be gone"
    left.close()
    return caught.value


def parts(memory: Callable[[int], int] = _create_memory, *, size: int = DATA_START + SIZE) -> list[int]:
    made: list[int] = []
    for _ in range(2):
        made += [memory(size), os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)]
    return made


@pytest.mark.parametrize("memory", [unsealed, half_sealed, plain_file])
def test_memory_that_could_shrink_is_refused(memory: Callable[[int], int]) -> None:
    assert accept_forged(greeting(), parts(memory)).cause == "ring"


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (greeting(magic=1), "magic"),
        (greeting(version=2), "version"),
        (greeting(size=SIZE * 2), "size"),
        (greeting(size=0), "size"),
        (greeting(size=2**40), "size"),
        (greeting(size=SIZE + 64), "size"),
        (greeting(count=7), "truncated"),
        (greeting()[:-1], "truncated"),
    ],
)
def test_a_false_greeting_is_refused(data: bytes, cause: str) -> None:
    assert accept_forged(data, parts()).cause == cause


def test_missing_and_surplus_descriptors_are_refused() -> None:
    made = parts()
    os.close(made.pop())
    assert accept_forged(greeting(), made).cause == "truncated"
    assert accept_forged(greeting(), [*parts(), os.eventfd(0)]).cause == "truncated"


def test_a_descriptor_that_is_no_eventfd_is_refused() -> None:
    made = parts()
    os.close(made[1])
    made[1] = os.open("/dev/zero", os.O_RDWR)
    assert accept_forged(greeting(), made).cause == "ring"


def test_an_offer_that_never_comes_ends_in_an_error() -> None:
    left, right = socket.socketpair()
    with pytest.raises(TransferError) as caught:
        accept(right, seconds=0.01)
    assert caught.value.cause == "closed"
    left.close()


def test_a_peer_that_went_before_the_offer_is_told() -> None:
    left, right = socket.socketpair()
    left.close()
    with pytest.raises(TransferError) as caught:
        accept(right)
    assert caught.value.cause == "closed"
    left, right = socket.socketpair()
    left.close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TransferError) as caught:
        offer(right, SIZE)
    assert caught.value.cause == "closed"
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_tcp_socket_is_refused_with_the_way_out() -> None:
    with pytest.raises(UnsupportedError, match="StreamChannel"):
        offer(socket.socket(socket.AF_INET), SIZE)


def test_received_descriptors_do_not_reach_child_processes() -> None:
    left, right = socket.socketpair()
    a, b = offer(left, SIZE), accept(right)
    assert not any(os.get_inheritable(descriptor) for descriptor in (*a._descriptors, *b._descriptors))
    a.close()
    b.close()


@pytest.mark.parametrize(("counter", "forged"), [(0, 2**64 - 64), (0, 7)])
def test_a_peer_that_forges_its_counter_closes_the_channel(counter: int, forged: int) -> None:
    left, right = socket.socketpair()
    a, b = offer(left, SIZE), accept(right)
    struct.pack_into("<Q", a._maps[0], counter, forged)
    with pytest.raises(TransferError) as caught:
        b.receive()
    assert caught.value.cause == "ring"
    with pytest.raises(TransferError) as caught:
        b.receive()
    assert caught.value.cause == "closed"
    a.close()


def test_a_reader_that_forges_its_counter_closes_the_channel() -> None:
    left, right = socket.socketpair()
    a, b = offer(left, SIZE), accept(right)
    struct.pack_into("<Q", b._maps[1], 64, 64)
    with pytest.raises(TransferError) as caught:
        a.send(1, b"")
    assert caught.value.cause == "ring"
    with pytest.raises(TransferError) as caught:
        a.send(1, b"")
    assert caught.value.cause == "closed"
    b.close()


def test_a_full_signal_counter_blocks_nobody() -> None:
    left, right = socket.socketpair()
    a, b = offer(left, SIZE), accept(right)
    os.eventfd_write(b._data_in, 2**64 - 2)
    assert a.send(1, b"comes")
    frame = b.receive()
    assert frame is not None
    assert frame.header == b"comes"
    a.close()
    b.close()


def test_a_frame_beyond_the_ring_names_both_sizes() -> None:
    left, right = socket.socketpair()
    channel: SharedChannel = offer(left, SIZE)
    with pytest.raises(TransferError, match=rf"takes {SIZE + 64} bytes .* holds {SIZE}") as caught:
        channel.send(1, b"", [bytes(SIZE)])
    assert caught.value.cause == "size"
    channel.close()
    right.close()
