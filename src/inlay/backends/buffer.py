"""HostBuffer: memory of one port in ordinary host memory, 64-byte aligned. Used by every framework that runs on the CPU.

Views of rows and framework handles over the memory are kept, so that binding the same rows again costs a lookup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from inlay.backends.seam import Array, Buffer
from inlay.errors import DeviceError, OutOfMemoryError
from inlay.models import numpy_dtype

ALIGNMENT = 64
SCATTER_WIDTH = 4  # up to this many tokens a row one fancy assignment is faster than a copy for each row


def aligned_zeros(shape: tuple[int, ...], dtype: str) -> Array:
    """A zeroed array whose first byte lies on a 64-byte boundary. Raises OutOfMemoryError."""
    kind = numpy_dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    try:
        raw = np.zeros(size + ALIGNMENT, np.uint8)
    except MemoryError as error:
        raise OutOfMemoryError(f"buffer of shape {list(shape)} needs {size} bytes, which this host does not give") from error
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(kind).reshape(shape)


class HostBuffer:
    """A Buffer (see the seam) over a C-contiguous numpy array, which `array` names; not copied."""

    __slots__ = ("_handles", "_views", "array", "dtype", "shape")

    def __init__(self, array: Array) -> None:
        if not array.flags.c_contiguous:
            raise DeviceError(f"host buffer of shape {list(array.shape)} is not contiguous, expected C order")
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype = array.dtype.name
        self._views: dict[tuple[int, int], HostBuffer] = {}
        self._handles: dict[str, Any] = {}

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dtype: str) -> HostBuffer:
        """A new aligned, zeroed buffer."""
        return cls(aligned_zeros(tuple(shape), dtype))

    def handle(self, framework: str, make: Callable[[Array], Any]) -> Any:
        """The framework's own tensor over this memory, made once."""
        found = self._handles.get(framework)
        if found is None:
            found = self._handles[framework] = make(self.array)
        return found

    def write(self, array: Array, at: tuple[int, ...] = ()) -> None:
        """Copy in; see the seam."""
        if not at and array.shape == self.shape:
            self.array[...] = array
            return
        self.array[region_of(self.shape, array.shape, at)] = array

    def read(self, at: tuple[slice, ...] = ()) -> Array:
        """A fresh copy; see the seam."""
        return np.array(self.array[at], order="C")  # not a bare number where there are no axes

    def rows(self, first: int, count: int) -> HostBuffer:
        """A view of `count` entries of the first axis; the same object each time."""
        view = self._views.get((first, count))
        if view is None:
            if first < 0 or count < 0 or first + count > self.shape[0]:
                raise DeviceError(f"rows {first}..{first + count} of a buffer of {self.shape[0]}, expected them inside it")
            view = self._views[(first, count)] = HostBuffer(self.array[first : first + count])
        return view

    def place(self, source: Buffer, *, rows: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        """Append KV; see the seam. Rows of one width up to 4 tokens go in one assignment."""
        if not isinstance(source, HostBuffer):
            raise DeviceError(f"place from a {type(source).__name__} into a HostBuffer, expected buffers of one executable")
        ours, theirs = self.array, source.array
        plan = _scatter(tuple(rows), tuple(starts), tuple(counts))
        if plan is None:
            for entry, (row, start, count) in enumerate(zip(rows, starts, counts, strict=True)):
                if count:
                    ours[row, :, start : start + count] = theirs[entry, :, :count]
            return
        entries, lines, tokens, width = plan
        if width == 1:
            ours[lines, :, tokens] = theirs[entries, :, 0] if entries is not None else theirs[: len(lines), :, 0]
        else:
            moved = theirs[: entries.shape[0] if entries is not None else len(lines), :, :width]
            ours[lines, :, tokens] = (moved if entries is None else theirs[entries, :, :width]).transpose(0, 2, 1, 3)


def region_of(shape: tuple[int, ...], part: tuple[int, ...], at: tuple[int, ...]) -> tuple[slice, ...]:
    """The slices that an array of shape `part` covers when its first element lies at `at`. Raises DeviceError outside."""
    if len(part) != len(shape) or len(at) > len(shape):
        raise DeviceError(f"array of shape {list(part)} into a buffer of shape {list(shape)}, expected as many axes")
    starts = (*at, *(0,) * (len(shape) - len(at)))
    if any(start < 0 or start + size > limit for start, size, limit in zip(starts, part, shape, strict=True)):
        raise DeviceError(f"array of shape {list(part)} at {list(starts)} does not fit a buffer of shape {list(shape)}")
    return tuple(slice(start, start + size) for start, size in zip(starts, part, strict=True))


@lru_cache(maxsize=64)
def _scatter(
    rows: tuple[int, ...], starts: tuple[int, ...], counts: tuple[int, ...]
) -> tuple[Array | None, Array, Array, int] | None:
    """Index arrays (entries or None for all, rows, tokens, width) of one assignment, or None where it takes a loop.

    The same batch is placed once for each layer's keys and values: the cache makes that one computation.
    """
    live = [entry for entry, count in enumerate(counts) if count]
    widths = {counts[entry] for entry in live}
    if len(widths) != 1 or max(widths) > SCATTER_WIDTH:
        return None
    width = widths.pop()
    entries = None if live == list(range(len(live))) else np.array(live)
    lines, tokens = np.array([rows[entry] for entry in live]), np.array([starts[entry] for entry in live])
    if width > 1:
        lines, tokens = lines[:, None], tokens[:, None] + np.arange(width)
    return entries, lines, tokens, width
