"""Frames over a connected stream socket, unix or TCP: the transport that always exists.

`StreamChannel` is the non-blocking Channel of device processes; `read_frame` and `write_frame` are the same format
on asyncio streams, for the engine and its clients. Neither authenticates: see handshake.py.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NoReturn

from inlay.errors import TransferError
from inlay.transport.channel import Frame
from inlay.transport.frame import PREFIX, TRAILER, Prefix, byte_views, check_header, decode_prefix, encode_prefix, header_crc

QUEUE_LIMIT = 16 * 1024 * 1024
_BUFFERS_PER_CALL = 64  # well below the kernel's IOV_MAX of 1024
_SMALLEST_BUFFER = 64 * 1024


class StreamChannel:
    """A Channel over `sock`, which it owns from here on.

    At most `queue_limit` bytes wait to be written (one frame may always wait, however big); beyond it `send` returns
    False. The payload of a frame lies in one buffer that the channel reuses.
    """

    def __init__(self, sock: socket.socket, *, queue_limit: int = QUEUE_LIMIT) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._epoll = select.epoll()
        self._fileno = self._epoll.fileno()
        self._epoll.register(sock, select.EPOLLIN)
        self._closed = False
        self._queue: deque[memoryview] = deque()
        self._queue_limit = queue_limit
        self._queued = 0
        self._armed = False  # whether the epoll set also waits for room
        self._fixed = bytearray(PREFIX.size)
        self._trailer = bytearray(TRAILER.size)
        self._buffer = bytearray()
        self._lent = memoryview(b"")  # the payload that the caller may be reading
        self._prefix: Prefix | None = None
        self._header = bytearray()
        self._wanted = [memoryview(self._fixed)]

    def fileno(self) -> int:
        """See Channel. It is an epoll descriptor: select it for reading only, also to learn that there is room."""
        return self._fileno

    @property
    def wants_write(self) -> bool:
        """Whether bytes are queued."""
        return bool(self._queue)

    def send(self, kind: int, header: bytes, payload: Sequence[Any] = ()) -> bool:
        """See Channel."""
        self._check_open()
        views = byte_views(payload)
        size = sum(len(view) for view in views)
        prefix = encode_prefix(Prefix(kind, len(header), size))
        size += len(prefix) + len(header) + TRAILER.size
        self._push()
        if self._queue and self._queued + size > self._queue_limit:
            self._arm()
            return False
        parts = [memoryview(prefix + header), *views, memoryview(TRAILER.pack(header_crc(header)))]
        idle = not self._queue
        self._queue.extend(parts)
        self._queued += size
        if idle:
            self._push()
        # What the socket did not take is copied: the buffers belong to the caller again when send returns.
        for index in range(max(0, len(self._queue) - len(parts)), len(self._queue)):
            self._queue[index] = memoryview(bytes(self._queue[index]))
        self._arm()
        return True

    def flush(self) -> bool:
        """Write what the socket takes now; True when nothing is left in the queue."""
        self._check_open()
        self._push()
        self._arm()
        return not self._queue

    def receive(self) -> Frame | None:
        """See Channel. TransferError causes: closed, truncated, magic, version, size, crc."""
        self._check_open()
        with suppress(BufferError):  # the caller still holds an array over it: its bytes are about to change
            self._lent.release()
        if self._queue:
            self.flush()
        try:
            while self._fill():
                if self._prefix is None:
                    self._begin(decode_prefix(self._fixed))
                else:
                    return self._finish(self._prefix)
        except TransferError:
            self.close()
            raise
        return None

    def close(self) -> None:
        """See Channel. What is queued is lost: call `flush` first."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._epoll.close()
            self._socket.close()

    def _check_open(self) -> None:
        if self._closed:
            raise TransferError("the channel is closed", cause="closed")

    def _send_some(self, buffers: Iterable[memoryview]) -> int:
        """Give the socket what it takes of these now; how many bytes. Raises BlockingIOError for none."""
        return self._socket.sendmsg(islice(buffers, _BUFFERS_PER_CALL))

    def _receive_some(self, buffers: list[memoryview]) -> int:
        """Fill these as far as there is something; how many bytes, 0 at the end. Raises BlockingIOError for none yet."""
        return self._socket.recvmsg_into(buffers)[0]

    def _push(self) -> None:
        while self._queue:
            try:
                count = self._send_some(self._queue)
            except BlockingIOError:
                return
            except OSError:
                # The peer has gone. Its last words may still lie in the socket, so receive tells, after those.
                self._queue.clear()
                self._queued = 0
                return
            self._queued -= count
            while count:
                first = self._queue[0]
                if count < len(first):
                    self._queue[0] = first[count:]
                    break
                count -= len(first)
                self._queue.popleft()

    def _arm(self) -> None:
        if self._armed != bool(self._queue):
            self._armed = bool(self._queue)
            self._epoll.modify(self._socket, select.EPOLLIN | (select.EPOLLOUT if self._armed else 0))

    def _fill(self) -> bool:
        """Reads into the wanted buffers; True when all are full."""
        while self._wanted:
            try:
                count = self._receive_some(self._wanted)
            except BlockingIOError:
                return False
            except OSError as error:
                self._gone(str(error))
            if count == 0:
                self._gone("end of stream")
            while self._wanted and count >= len(self._wanted[0]):
                count -= len(self._wanted.pop(0))
            if count:
                self._wanted[0] = self._wanted[0][count:]
        return True

    def _gone(self, reason: str) -> NoReturn:
        within = self._prefix is not None or len(self._wanted[0]) < PREFIX.size
        if within:
            raise TransferError(f"the peer went in the middle of a frame: {reason}", cause="truncated")
        raise TransferError(f"the peer has gone: {reason}", cause="closed")

    def _begin(self, prefix: Prefix) -> None:
        self._prefix = prefix
        self._header = bytearray(prefix.header_length)
        if len(self._buffer) < prefix.payload_length:
            self._buffer = bytearray(max(prefix.payload_length, _SMALLEST_BUFFER))
        parts = (memoryview(self._header), memoryview(self._buffer)[: prefix.payload_length], memoryview(self._trailer))
        self._wanted = [part for part in parts if len(part)]

    def _finish(self, prefix: Prefix) -> Frame:
        check_header(self._header, crc=TRAILER.unpack(self._trailer)[0])
        self._prefix = None
        self._wanted = [memoryview(self._fixed)]
        self._lent = memoryview(self._buffer)[: prefix.payload_length].toreadonly()
        return Frame(prefix.kind, bytes(self._header), self._lent)


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame of an asyncio stream; its payload is its own memory. TransferError as StreamChannel.receive."""
    prefix = decode_prefix(await _read(reader, PREFIX.size, first=True))
    header = await _read(reader, prefix.header_length)
    payload = await _read(reader, prefix.payload_length)
    trailer = await _read(reader, TRAILER.size)
    check_header(header, crc=TRAILER.unpack(trailer)[0])
    return Frame(prefix.kind, header, memoryview(payload))


def write_frame(writer: asyncio.StreamWriter, kind: int, header: bytes, payload: Sequence[Any] = ()) -> None:
    """Queue one frame on an asyncio stream; `await writer.drain()` gives back-pressure. TransferError as `send`."""
    views = byte_views(payload)
    prefix = encode_prefix(Prefix(kind, len(header), sum(len(view) for view in views)))
    writer.writelines([prefix, header, *views, TRAILER.pack(header_crc(header))])


class FrameWriter:
    """Frames without payload to one asyncio stream: those of one turn of the event loop leave together, in order."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: list[bytes] = []

    def write(self, kind: int, header: bytes) -> None:
        """Queue one frame; one for a stream that is closing is dropped."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting += (encode_prefix(Prefix(kind, len(header), 0)), header, TRAILER.pack(header_crc(header)))

    def flush(self) -> None:
        """Hand over what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting and not self._writer.is_closing():
            self._writer.write(b"".join(waiting))


async def _read(reader: asyncio.StreamReader, count: int, *, first: bool = False) -> bytes:
    try:
        return await reader.readexactly(count)
    except asyncio.IncompleteReadError as error:
        if first and not error.partial:
            raise TransferError("the peer has gone: end of stream", cause="closed") from None
        raise TransferError("the peer went in the middle of a frame: end of stream", cause="truncated") from None
    except OSError as error:
        raise TransferError(f"the peer has gone: {error}", cause="closed") from error
