"""Frames on a byte stream: any cut of the bytes is put together, any damage is refused."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest

from inlay.errors import TransferError
from inlay.transport import HEADER_LIMIT, StreamChannel, read_frame, write_frame
from inlay.transport.channel import PAYLOAD_LIMIT
from inlay.transport.frame import MAGIC, PREFIX, VERSION, header_crc


def wire(kind: int = 3, header: bytes = b"header", payload: bytes = b"payload") -> bytes:
    prefix = PREFIX.pack(MAGIC, VERSION, kind, 0, len(header), len(payload))
    return prefix + header + payload + struct.pack("<I", header_crc(header))


DAMAGED = {
    "magic": b"X" + wire()[1:],
    "version": wire()[:4] + b"\x09" + wire()[5:],
    "crc": wire().replace(b"header", b"hEader"),
    "size": PREFIX.pack(MAGIC, VERSION, 1, 0, 0, PAYLOAD_LIMIT + 1),
    "truncated": wire()[:-1],
    "closed": b"",
}


@pytest.fixture
def ends() -> Iterator[tuple[StreamChannel, socket.socket]]:
    left, right = socket.socketpair()
    channel = StreamChannel(left)
    yield channel, right
    channel.close()
    right.close()


def test_a_frame_that_arrives_byte_by_byte_is_put_together(ends: tuple[StreamChannel, socket.socket]) -> None:
    channel, peer = ends
    for byte in wire()[:-1]:
        peer.send(bytes([byte]))
        assert channel.receive() is None
    peer.send(wire()[-1:])
    frame = channel.receive()
    assert frame is not None
    assert (frame.kind, frame.header, bytes(frame.payload)) == (3, b"header", b"payload")


@pytest.mark.parametrize("cut", range(1, len(wire())))
def test_two_frames_cut_anywhere_are_put_together(ends: tuple[StreamChannel, socket.socket], cut: int) -> None:
    channel, peer = ends
    data = wire() + wire(4, b"", b"")
    found = []
    for part in (data[:cut], data[cut:]):
        peer.sendall(part)
        while (frame := channel.receive()) is not None:
            found.append((frame.kind, frame.header, bytes(frame.payload)))
    assert found == [(3, b"header", b"payload"), (4, b"", b"")]


def test_the_bytes_on_the_wire_are_those_of_the_format(ends: tuple[StreamChannel, socket.socket]) -> None:
    channel, peer = ends
    assert channel.send(3, b"header", [b"pay", b"load"])
    assert peer.recv(1000) == wire()
    assert not channel.wants_write


def test_a_large_frame_is_written_in_pieces_as_the_reader_takes_them(ends: tuple[StreamChannel, socket.socket]) -> None:
    channel, peer = ends
    payload = bytes(range(256)) * 16384
    assert channel.send(3, b"header", [payload])
    assert channel.wants_write
    assert not channel.flush()
    data = b""
    while len(data) < len(wire(payload=payload)):
        data += peer.recv(1 << 20)
        channel.flush()
    assert data == wire(payload=payload)
    assert channel.flush()
    assert not channel.wants_write


def test_one_frame_above_the_queue_limit_may_wait_but_no_second_one() -> None:
    left, peer = socket.socketpair()
    channel = StreamChannel(left, queue_limit=1000)
    assert channel.send(1, b"", [bytes(4_000_000)])
    assert not channel.send(1, b"")
    channel.close()
    peer.close()


@pytest.mark.parametrize("cause", DAMAGED)
def test_damage_is_refused_with_its_cause_and_closes(ends: tuple[StreamChannel, socket.socket], cause: str) -> None:
    channel, peer = ends
    peer.sendall(DAMAGED[cause])
    peer.shutdown(socket.SHUT_WR)
    for expected in (cause, "closed"):
        with pytest.raises(TransferError) as caught:
            channel.receive()
        assert caught.value.cause == expected


def test_an_announced_size_beyond_the_cap_allocates_nothing(ends: tuple[StreamChannel, socket.socket]) -> None:
    channel, peer = ends
    peer.sendall(PREFIX.pack(MAGIC, VERSION, 1, 0, HEADER_LIMIT + 1, 2**63))
    with pytest.raises(TransferError) as caught:
        channel.receive()
    assert caught.value.cause == "size"
    assert len(channel._buffer) == 0


@pytest.mark.parametrize("cause", DAMAGED)
def test_the_asyncio_reader_refuses_the_same_damage(cause: str) -> None:
    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(DAMAGED[cause])
        reader.feed_eof()
        await read_frame(reader)

    with pytest.raises(TransferError) as caught:
        asyncio.run(read())
    assert caught.value.cause == cause


def test_asyncio_ends_and_channels_speak_the_same_format() -> None:
    async def talk() -> None:
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=left)
        channel = StreamChannel(right)
        write_frame(writer, 5, b"question", [b"a", memoryview(b"bc")])
        await writer.drain()
        ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(channel.fileno(), ready.set)
        await ready.wait()
        frame = channel.receive()
        assert frame is not None
        assert (frame.kind, frame.header, bytes(frame.payload)) == (5, b"question", b"abc")
        channel.send(6, b"answer", [b"de", b"f"])
        answer = await read_frame(reader)
        assert (answer.kind, answer.header, bytes(answer.payload)) == (6, b"answer", b"def")
        asyncio.get_running_loop().remove_reader(channel.fileno())
        channel.close()
        with pytest.raises(TransferError) as caught:
            await read_frame(reader)
        assert caught.value.cause == "closed"
        writer.close()
        await writer.wait_closed()

    asyncio.run(talk())
