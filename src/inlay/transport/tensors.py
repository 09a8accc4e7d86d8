"""Named arrays over a Channel: cut into frames of bounded size by a sender, put together and checked at the other end.

Used where one piece of a program passes values on to the next: by the engine between the regions of a replica, by the
runtime between the regions of a partition. Each array belongs to a numbered run (a batch); a run that failed is told.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Annotated, Any

import ml_dtypes
import msgspec
import numpy as np

from inlay.errors import TransferError
from inlay.transport.channel import Channel, Frame

TENSOR_FRAME = 3
"""Frame kind of what is sent here."""
FRAME_BYTES = 2 * 1024 * 1024
"""The most payload of one frame: a ring of 16 MiB holds several, so that both ends copy at the same time."""
TENSOR_LIMIT = 1024 * 1024 * 1024
Array = np.ndarray[Any, Any]
DTYPES: dict[str, np.dtype[Any]] = {
    **{
        name: np.dtype(name)
        for name in (
            "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
            "float16", "float32", "float64", "complex64", "complex128",
        )
    },
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Part(msgspec.Struct, frozen=True, kw_only=True, tag="part"):
    """The header of one frame: bytes of an array of this dtype and shape, in C order, from byte `offset` on."""

    name: str
    run: int
    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    offset: int


class RunFailed(msgspec.Struct, frozen=True, kw_only=True, tag="run_failed"):
    """In place of the arrays of a run: what went wrong before them."""

    run: int
    code: str
    message: str


class NamedArray(msgspec.Struct, frozen=True, kw_only=True):
    """One whole array of a run."""

    name: str
    run: int
    array: Array


_DECODER = msgspec.msgpack.Decoder(Part | RunFailed)


def tensor_frames(array: Array, *, name: str, run: int, frame_bytes: int = FRAME_BYTES) -> list[tuple[bytes, memoryview]]:
    """Header and payload of every frame of an array, at least one. The payloads are views of it where it is contiguous.

    Raises TransferError(cause="dtype") for a dtype that does not travel.
    """
    dtype = _NAMES.get(array.dtype)  # numpy works a dtype's name out anew each time
    if dtype is None:
        raise TransferError(f"array {name!r} is {array.dtype}, expected one of {', '.join(DTYPES)}", cause="dtype")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    frames = []
    for offset in range(0, max(1, len(flat)), frame_bytes):
        part = Part(name=name, run=run, dtype=dtype, shape=array.shape, offset=offset)
        frames.append((msgspec.msgpack.encode(part), flat[offset : offset + frame_bytes]))
    return frames


class TensorSender:
    """Sends arrays in order over a channel that may be full; what it does not take waits here."""

    def __init__(self, channel: Channel, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._channel = channel
        self._frame_bytes = frame_bytes
        self._queue: deque[tuple[bytes, memoryview]] = deque()

    @property
    def waiting(self) -> bool:
        """Whether something waits for room: `flush` when the channel is readable."""
        return bool(self._queue)

    def send(self, array: Array, *, name: str, run: int) -> None:
        """Queue an array and send what there is room for. It must not change while `waiting`. Raises TransferError."""
        self._queue.extend(tensor_frames(array, name=name, run=run, frame_bytes=self._frame_bytes))
        self.flush()

    def fail(self, run: int, *, code: str, message: str) -> None:
        """Tell that the arrays of this run do not come."""
        self._queue.append((msgspec.msgpack.encode(RunFailed(run=run, code=code, message=message)), memoryview(b"")))
        self.flush()

    def own(self) -> None:
        """Copy what waits, so that the arrays may change from here on."""
        kept = ((header, item if isinstance(item.obj, bytes) else memoryview(bytes(item))) for header, item in self._queue)
        self._queue = deque(kept)

    def flush(self) -> None:
        """Send as far as the channel takes it."""
        while self._queue and self._channel.send(TENSOR_FRAME, self._queue[0][0], self._queue[0][1:]):
            self._queue.popleft()


class TensorAssembler:
    """Puts the frames of one channel together. Nothing of a frame is believed before it is checked.

    With `copy` false an array that came in one frame is a read-only view of its payload: use it before the next `receive`.
    """

    def __init__(self, *, limit: int = TENSOR_LIMIT, copy: bool = True) -> None:
        self._limit = limit
        self._copy = copy
        self._pending: Part | None = None
        self._bytes: Array = np.empty(0, np.uint8)
        self._filled = 0

    def take(self, frame: Frame) -> NamedArray | RunFailed | None:
        """The array that this frame completes, a failed run, or None while more must come.

        Raises TransferError with cause "kind", "header", "dtype", "size" or "order"; the channel is then of no more use.
        """
        if frame.kind != TENSOR_FRAME:
            raise TransferError(f"frame has kind {frame.kind}, expected {TENSOR_FRAME}", cause="kind")
        try:
            part = _DECODER.decode(frame.header)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a broken text is told by the latter
            raise TransferError(f"header of a tensor frame cannot be read: {error}", cause="header") from error
        if isinstance(part, RunFailed):
            if self._pending is not None:
                raise TransferError(f"run {part.run} failed in the middle of array {self._pending.name!r}", cause="order")
            return part
        size = self._check(part)
        if len(frame.payload) > size - part.offset or (len(frame.payload) == 0) != (size == 0):
            raise TransferError(
                f"a frame of array {part.name!r} has {len(frame.payload)} bytes, expected 1 to {size - part.offset}",
                cause="size",
            )
        if len(frame.payload) == size and not self._copy:
            return _named(part, np.frombuffer(frame.payload, np.uint8))
        return self._add(part, frame.payload, size)

    def _check(self, part: Part) -> int:
        """Bytes of the whole array, once the frame is the one that must come next."""
        if part.dtype not in DTYPES:
            raise TransferError(f"array {part.name!r} is {part.dtype!r}, expected one of {', '.join(DTYPES)}", cause="dtype")
        size = math.prod(part.shape) * DTYPES[part.dtype].itemsize
        if size > self._limit:
            raise TransferError(f"array {part.name!r} has {size} bytes, expected at most {self._limit}", cause="size")
        before = self._pending
        expected = None if before is None else (before.name, before.run, before.dtype, before.shape)
        if part.offset != self._filled or (before is not None and (part.name, part.run, part.dtype, part.shape) != expected):
            raise TransferError(
                f"a frame of array {part.name!r} of run {part.run} begins at byte {part.offset}, expected byte {self._filled}"
                f"{'' if before is None else f' of array {before.name!r} of run {before.run}'}",
                cause="order",
            )
        return size

    def _add(self, part: Part, payload: memoryview, size: int) -> NamedArray | None:
        if self._pending is None:
            self._pending, self._bytes = part, np.empty(size, np.uint8)
        self._bytes[self._filled : self._filled + len(payload)] = payload
        self._filled += len(payload)
        if self._filled < size:
            return None
        whole, self._pending, self._filled, self._bytes = self._bytes, None, 0, np.empty(0, np.uint8)
        return _named(part, whole)


def _named(part: Part, flat: Array) -> NamedArray:
    return NamedArray(name=part.name, run=part.run, array=flat.view(DTYPES[part.dtype]).reshape(part.shape))
