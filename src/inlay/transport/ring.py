"""A ring of frames in memory that two processes map: one writes, one reads, neither trusts the other.

Layout: the writer's counter `head` at byte 0, the reader's counter `tail` at byte 64, the data from byte 4096. Both
counters only grow; a position is a counter modulo the capacity. Every frame starts at a multiple of 64 and is
contiguous: where it would not fit before the end, a wrap marker skips the rest. Order of stores and loads is that of
x86-64 (total store order): the data of a frame is visible before the counter that publishes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from inlay.errors import TransferError
from inlay.transport.channel import Frame
from inlay.transport.frame import PREFIX, TRAILER, Prefix, byte_views, check_header, decode_prefix, encode_prefix, header_crc

DATA_START = 4096
ALIGNMENT = 64
_HEAD = 0
_TAIL = ALIGNMENT // 8
_FIXED = PREFIX.size + TRAILER.size
_WRAP = b"WRAPWRAP"


def aligned(size: int) -> int:
    """`size` rounded up to the alignment of frames and payloads."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def frame_size(header_length: int, payload_length: int) -> int:
    """Bytes that a frame takes in a ring: prefix, crc and header, then the payload, each part aligned."""
    return aligned(_FIXED + header_length) + aligned(payload_length)


class RingWriter:
    """The writing end of the ring in `memory`; `head` counts the bytes published so far."""

    def __init__(self, memory: memoryview) -> None:
        self._counters = memory[:DATA_START].cast("Q")
        self._data = memory[DATA_START:]
        self._capacity = len(self._data)
        self.head = 0
        self._tail = 0

    def write(self, kind: int, header: bytes, payload: Sequence[Any]) -> bool:
        """Publish one frame; False when there is no room now (a wrap marker may have been published: see `head`).

        Raises TransferError: "size" when it can never fit, "ring" when the reader's counter is impossible.
        """
        views = byte_views(payload)
        length = sum(len(view) for view in views)
        fixed = encode_prefix(Prefix(kind, len(header), length)) + TRAILER.pack(header_crc(header))
        size = frame_size(len(header), length)
        if size > self._capacity:
            message = f"frame of kind {kind} takes {size} bytes but the ring holds {self._capacity}"
            raise TransferError(message, cause="size", hint="send smaller chunks, or offer a larger ring")
        free = self._capacity - (self.head - self._read_tail())
        at = self.head % self._capacity
        rest = self._capacity - at
        if size > rest:
            if free < rest:
                return False
            self._data[at : at + len(_WRAP)] = _WRAP
            self._publish(rest)
            free -= rest
            at = 0
        if size > free:
            return False
        end = at + _FIXED
        self._data[at:end] = fixed
        self._data[end : end + len(header)] = header
        end = at + aligned(_FIXED + len(header))
        for view in views:
            self._data[end : end + len(view)] = view
            end += len(view)
        self._publish(size)
        return True

    def release(self) -> None:
        """Let go of the memory."""
        self._counters.release()
        self._data.release()

    def _publish(self, size: int) -> None:
        self.head += size
        self._counters[_HEAD] = self.head  # one aligned 8-byte store, after the data it publishes

    def _read_tail(self) -> int:
        tail = self._counters[_TAIL]
        if not self._tail <= tail <= self.head or tail % ALIGNMENT:
            message = f"the reader's ring counter is {tail}, expected {self._tail} to {self.head} in steps of {ALIGNMENT}"
            raise TransferError(message, cause="ring")
        self._tail = tail
        return tail


class RingReader:
    """The reading end of the ring in `memory`; `tail` counts the bytes given back to the writer so far."""

    def __init__(self, memory: memoryview) -> None:
        self._counters = memory[:DATA_START].cast("Q")
        self._data = memory[DATA_START:]
        self._capacity = len(self._data)
        self._payload = memoryview(b"")
        self._head = 0
        self._held = 0
        self.tail = 0

    def read(self) -> Frame | None:
        """The next frame, or None; gives the bytes of the last one back first.

        Everything in the ring is the peer's word: header and lengths are copied before they are checked, but the
        payload stays in shared memory, where the peer can still write: copy it before you verify a digest of it.
        Raises TransferError with cause "ring", "truncated", "magic", "version", "size" or "crc".
        """
        self._give_back()
        head = self._read_head()
        while self.tail < head:
            at = self.tail % self._capacity
            rest = self._capacity - at
            fixed = bytes(self._data[at : at + _FIXED])
            if fixed.startswith(_WRAP):
                if head - self.tail < rest:
                    raise TransferError("a ring's wrap marker lies before its end was written", cause="ring")
                self._advance(rest)
                continue
            return self._decode(fixed, at=at, available=min(rest, head - self.tail))
        return None

    def release(self) -> None:
        """Let go of the memory, as far as the caller has let go of the last payload."""
        with suppress(BufferError):
            self._payload.release()
        self._counters.release()
        with suppress(BufferError):
            self._data.release()

    def _decode(self, fixed: bytes, *, at: int, available: int) -> Frame:
        prefix = decode_prefix(fixed[: PREFIX.size])
        size = frame_size(prefix.header_length, prefix.payload_length)
        if size > available:
            message = f"frame of kind {prefix.kind} takes {size} bytes but {available} were written"
            raise TransferError(message, cause="truncated")
        header = bytes(self._data[at + _FIXED : at + _FIXED + prefix.header_length])
        check_header(header, crc=TRAILER.unpack(fixed[PREFIX.size :])[0])
        start = at + aligned(_FIXED + prefix.header_length)
        self._payload = self._data[start : start + prefix.payload_length].toreadonly()
        self._held = size
        return Frame(prefix.kind, header, self._payload)

    def _give_back(self) -> None:
        if self._held:
            with suppress(BufferError):  # the caller still holds an array over it: its bytes are about to change
                self._payload.release()
            self._advance(self._held)
            self._held = 0

    def _advance(self, size: int) -> None:
        self.tail += size
        self._counters[_TAIL] = self.tail

    def _read_head(self) -> int:
        head = self._counters[_HEAD]
        if not self._head <= head <= self.tail + self._capacity or head % ALIGNMENT:
            limit = self.tail + self._capacity
            message = f"the writer's ring counter is {head}, expected {self._head} to {limit} in steps of {ALIGNMENT}"
            raise TransferError(message, cause="ring")
        self._head = head
        return head
