"""Frames through shared memory between two processes of one host: no copy on the reader's side, no system call per byte.

One memfd ring and two eventfds (data, space) a direction, handed over a unix socket that stays open as the sign of
life. `offer` and `accept` are the two ends; do handshake.py on the socket first.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import platform
import select
import socket
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from inlay.errors import TransferError, UnsupportedError
from inlay.transport.channel import Frame
from inlay.transport.ring import DATA_START, RingReader, RingWriter

RING_SIZE = 16 * 1024 * 1024
RING_LIMIT = 1024 * 1024 * 1024
_GREETING = struct.Struct("<IHHQ")
_INT = struct.Struct("@i")
_MAGIC = int.from_bytes(b"INLR", "little")
_VERSION = 1
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_PARTS = 6  # memory, data, space of offerer -> accepter; the same of accepter -> offerer


class SharedChannel:
    """A Channel over two rings. It owns the socket and the descriptors (memory, data, space) of each direction.

    A frame that was published before the peer died is still handed out; then `receive` raises "closed".
    """

    def __init__(self, sock: socket.socket, *, outgoing: Sequence[int], incoming: Sequence[int]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._closed = False
        memory_out, self._data_out, self._space_out = outgoing
        memory_in, self._data_in, self._space_in = incoming
        self._maps = (mmap.mmap(memory_out, 0), mmap.mmap(memory_in, 0))
        self._descriptors = (*outgoing, *incoming)
        self._writer = RingWriter(memoryview(self._maps[0]))
        self._reader = RingReader(memoryview(self._maps[1]))
        self._waits_for_space = False
        self._epoll = select.epoll()
        self._fileno = self._epoll.fileno()
        self._epoll.register(self._data_in, select.EPOLLIN)
        self._epoll.register(sock, select.EPOLLIN)

    def fileno(self) -> int:
        """See Channel. It is an epoll descriptor: select it for reading only, also to learn that there is room."""
        return self._fileno

    def send(self, kind: int, header: bytes, payload: Sequence[Any] = ()) -> bool:
        """See Channel. TransferError causes: closed, size, kind, layout (all harmless), ring (closes the channel)."""
        self._check_open()
        head = self._writer.head
        try:
            sent = self._writer.write(kind, header, payload)
            if not sent:
                # Forget old signals, then look again: a reader that frees space after this look signals after it.
                _drain(self._space_out)
                sent = self._writer.write(kind, header, payload)
        except TransferError as error:
            if error.cause == "ring":
                self.close()
            raise
        if self._writer.head != head:
            _signal(self._data_out)
        if not sent and not self._waits_for_space:
            self._waits_for_space = True
            self._epoll.register(self._space_out, select.EPOLLIN)
        return sent

    def receive(self) -> Frame | None:
        """See Channel. TransferError causes: closed, and those of RingReader.read."""
        self._check_open()
        frame = self._next()
        if frame is not None:
            return frame
        gone = False
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._data_in:
                _drain(self._data_in)
            elif descriptor == self._space_out:
                _drain(self._space_out)
                self._epoll.unregister(self._space_out)
                self._waits_for_space = False
            else:
                gone = True
        # Look again after the signals are consumed: what is published after this look signals again.
        frame = self._next()
        if frame is None and gone:
            self.close()
            raise TransferError("the peer has gone: its end of the socket is closed", cause="closed")
        return frame

    def close(self) -> None:
        """See Channel. A payload that is still held keeps its memory mapped."""
        if self._closed:
            return
        self._closed = True
        self._writer.release()
        self._reader.release()
        for mapped in self._maps:
            with suppress(BufferError):
                mapped.close()
        self._epoll.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._socket.close()

    def _check_open(self) -> None:
        if self._closed:
            raise TransferError("the channel is closed", cause="closed")

    def _next(self) -> Frame | None:
        tail = self._reader.tail
        try:
            frame = self._reader.read()
        except TransferError:
            self.close()
            raise
        if self._reader.tail != tail:
            _signal(self._space_in)
        return frame


def offer(sock: socket.socket, size: int = RING_SIZE) -> SharedChannel:
    """Make two rings of `size` bytes each and hand them to the peer of the unix socket, which must `accept`.

    Owns `sock` from here on, also when it fails. Raises TransferError; UnsupportedError where it cannot be safe.
    """
    _check_machine(sock)
    if not 0 < size <= RING_LIMIT:
        sock.close()
        raise TransferError(f"ring size is {size} bytes, expected 1 to {RING_LIMIT}", cause="size")
    size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    parts: list[int] = []
    try:
        for _ in range(2):
            parts.append(_create_memory(DATA_START + size))
            parts.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
            parts.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        socket.send_fds(sock, [_GREETING.pack(_MAGIC, _VERSION, _PARTS, size)], parts)
        return SharedChannel(sock, outgoing=parts[:3], incoming=parts[3:])
    except OSError as error:
        _give_up(sock, parts)
        raise TransferError(f"shared memory of 2 x {size} bytes cannot be offered: {error}", cause="closed") from error


def accept(sock: socket.socket, *, seconds: float = 10.0) -> SharedChannel:
    """Take the rings that the peer of the unix socket offers; blocks for at most `seconds`.

    Owns `sock` from here on, also when it fails. Raises TransferError with cause "closed", "truncated", "magic",
    "version", "size" or "ring" (a memory that could shrink, a descriptor of the wrong kind).
    """
    _check_machine(sock)
    parts: list[int] = []
    try:
        sock.settimeout(seconds)
        data, messages, flags, _ = sock.recvmsg(_GREETING.size, socket.CMSG_LEN(_PARTS * _INT.size), socket.MSG_CMSG_CLOEXEC)
        for _level, _type, packed in messages:  # not socket.recv_fds: Python 3.11 forgets its flags, and children would inherit
            parts += [number for (number,) in _INT.iter_unpack(packed[: len(packed) // _INT.size * _INT.size])]
        _check_greeting(data, parts, flags)
        return SharedChannel(sock, outgoing=parts[3:], incoming=parts[:3])
    except TransferError:
        _give_up(sock, parts)
        raise
    except OSError as error:
        _give_up(sock, parts)
        raise TransferError(f"shared memory was not received: {error}", cause="closed") from error


def _check_machine(sock: socket.socket) -> None:
    reason = None
    if sock.family != socket.AF_UNIX:
        reason = "shared memory needs a unix socket between the two processes"
    elif platform.machine() not in ("x86_64", "AMD64"):
        reason = f"shared memory rings need the store order of x86-64, this machine is {platform.machine()}"
    if reason is not None:
        sock.close()
        raise UnsupportedError(reason, hint="use StreamChannel")


def _create_memory(size: int) -> int:
    memory = os.memfd_create("inlay-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(memory, 0, size)  # out of memory is an error here instead of a SIGBUS later
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(memory)
        raise
    return memory


def _check_greeting(data: bytes, parts: Sequence[int], flags: int) -> None:
    if not data:
        raise TransferError("the peer has gone before it offered shared memory", cause="closed")
    if len(data) != _GREETING.size or flags & socket.MSG_CTRUNC:
        raise TransferError(f"offer of shared memory has {len(data)} bytes, expected {_GREETING.size}", cause="truncated")
    magic, version, count, size = _GREETING.unpack(data)
    if magic != _MAGIC:
        raise TransferError(f"offer of shared memory starts with {magic:#010x}, expected {_MAGIC:#010x}", cause="magic")
    if version != _VERSION:
        raise TransferError(f"offer of shared memory has version {version}, expected {_VERSION}", cause="version")
    if count != _PARTS or len(parts) != _PARTS:
        raise TransferError(f"offer of shared memory has {len(parts)} descriptors, expected {_PARTS}", cause="truncated")
    if not 0 < size <= RING_LIMIT or size % mmap.PAGESIZE:
        raise TransferError(f"offered ring has {size} bytes, expected whole pages up to {RING_LIMIT}", cause="size")
    for index, descriptor in enumerate(parts):
        if index % 3 == 0:
            _check_memory(descriptor, DATA_START + size)
        elif os.readlink(f"/proc/self/fd/{descriptor}") != "anon_inode:[eventfd]":
            raise TransferError(f"descriptor {index} of the offered shared memory is not an eventfd", cause="ring")


def _check_memory(descriptor: int, size: int) -> None:
    """A memory that can shrink would kill the reader with SIGBUS; only a sealed memfd cannot."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        raise TransferError(f"offered memory has {status.st_size} bytes, expected {size}", cause="size")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0  # not a memfd at all
    if seals & _SEALS != _SEALS:
        raise TransferError("offered memory is not sealed against a change of its size", cause="ring")


def _give_up(sock: socket.socket, descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    sock.close()


def _signal(descriptor: int) -> None:
    with suppress(BlockingIOError):  # the counter is full: the descriptor is readable as it should be
        os.eventfd_write(descriptor, 1)


def _drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        os.eventfd_read(descriptor)
