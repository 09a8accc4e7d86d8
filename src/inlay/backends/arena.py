"""The contrary device's own memory: counted, limited, reached by copies only, KV pasts in blocks of 16 tokens."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from inlay.backends.buffer import region_of
from inlay.backends.contrary.support import NAME
from inlay.backends.seam import Array, Buffer
from inlay.errors import DeviceError, OutOfMemoryError
from inlay.models import numpy_dtype

BLOCK = 16


class DeviceMemory:
    """A budget of bytes, counted by leases that end with their last reference."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> Lease:
        """Count `size` bytes for as long as the lease is referenced. Raises OutOfMemoryError."""
        if self.limit is not None and self.used + size > self.limit:
            raise OutOfMemoryError(
                f"{NAME} device has {self.limit} bytes, {self.used} of them used, and was asked for {size} more",
                hint="fewer slots or smaller capacities, or a larger option memory",
            )
        self.used += size
        lease = Lease()
        weakref.finalize(lease, self._give_back, size)
        return lease

    def _give_back(self, size: int) -> None:
        self.used -= size


_LIMITED: weakref.WeakValueDictionary[int, DeviceMemory] = weakref.WeakValueDictionary()


def device_memory(limit: int | None) -> DeviceMemory:
    """The memory of the device: a process is one device, so all that is loaded under the same limit shares it."""
    if limit is None:
        return DeviceMemory(None)
    found = _LIMITED.get(limit)
    if found is None:
        found = _LIMITED[limit] = DeviceMemory(limit)
    return found


class Lease:
    """Bytes taken from a DeviceMemory; a buffer and its views hold it together."""


def physical_shape(shape: tuple[int, ...], *, blocked: bool) -> tuple[int, ...]:
    """The shape of what is stored: whole blocks for a past."""
    if not blocked:
        return shape
    rows, heads, tokens, dim = shape
    return rows * math.ceil(tokens / BLOCK), heads, dim, BLOCK


class ContraryBuffer:
    """A Buffer (see the seam) that the host reaches only by `write` and `read`.

    A past [B, heads, P, dim] is kept as [block][head][dim][token], ceil(P / 16) blocks a row one after another;
    every other port as it is. KV is stored in `stored`, which may be bfloat16; the host always sees float32.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        *,
        blocked: bool,
        stored: np.dtype[Any],
        lease: Lease,
        kept: Array | None = None,
    ) -> None:
        self.shape, self.dtype, self._blocked, self._stored, self._lease = shape, dtype, blocked, stored, lease
        self._views: dict[tuple[int, int], ContraryBuffer] = {}
        self._kept = np.zeros(physical_shape(shape, blocked=blocked), stored) if kept is None else kept

    def write(self, array: Array, at: tuple[int, ...] = ()) -> None:
        """Copy in; see the seam."""
        region = region_of(self.shape, array.shape, at)
        if self._blocked:
            self._tokens()[region] = array
        else:
            self._kept[region] = array

    def read(self, at: tuple[slice, ...] = ()) -> Array:
        """A fresh copy; see the seam."""
        view = self._tokens() if self._blocked else self._kept
        return np.array(view[at], dtype=numpy_dtype(self.dtype), order="C")

    def rows(self, first: int, count: int) -> ContraryBuffer:
        """A view of `count` entries of the first axis; the same object each time."""
        view = self._views.get((first, count))
        if view is None:
            if first < 0 or count < 0 or first + count > self.shape[0]:
                raise DeviceError(f"rows {first}..{first + count} of a buffer of {self.shape[0]}, expected them inside it")
            blocks = len(self._kept) // self.shape[0]
            kept = self._kept[first * blocks : (first + count) * blocks]
            shape = (count, *self.shape[1:])
            view = ContraryBuffer(shape, self.dtype, blocked=self._blocked, stored=self._stored, lease=self._lease, kept=kept)
            self._views[(first, count)] = view
        return view

    def place(self, source: Buffer, *, rows: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        """Append KV on the device; see the seam."""
        if not isinstance(source, ContraryBuffer):
            raise DeviceError(f"place from a {type(source).__name__} into a ContraryBuffer, expected one executable's buffers")
        ours = self._tokens()
        for entry, (row, start, count) in enumerate(zip(rows, starts, counts, strict=True)):
            if start + count > self.shape[2]:
                raise DeviceError(f"{count} tokens at {start} do not fit a past of {self.shape[2]}")
            if count:
                ours[row, :, start : start + count] = source._kept[entry, :, :count]

    def _tokens(self) -> _Blocked:
        return _Blocked(self._kept, self.shape)


class _Blocked:
    """Logical [B, heads, P, dim] indexing by plain slices (or one row) over blocks, copying both ways."""

    def __init__(self, kept: Array, shape: tuple[int, ...]) -> None:
        self._kept, self._shape = kept, shape
        rows, heads, tokens, dim = shape
        self._blocks = math.ceil(tokens / BLOCK)
        self._by_row = kept.reshape(rows, self._blocks, heads, dim, BLOCK)

    def __getitem__(self, at: tuple[Any, ...]) -> Array:
        rows, heads, _, dim = self._shape
        whole = self._by_row.transpose(0, 2, 1, 4, 3).reshape(rows, heads, self._blocks * BLOCK, dim)
        part: Array = whole[:, :, : self._shape[2]][at]
        return part

    def __setitem__(self, at: tuple[Any, ...], array: Array) -> None:
        every = slice(None)
        row, head, tokens, dim = (*at, every) if len(at) == 3 else at
        first, last, _ = tokens.indices(self._shape[2])
        for block in range(first // BLOCK, math.ceil(last / BLOCK)):
            low, high = max(first, block * BLOCK), min(last, (block + 1) * BLOCK)
            inside = slice(low - block * BLOCK, high - block * BLOCK)
            piece = array[..., low - first : high - first, :]
            self._by_row[row, block, head, dim, inside] = piece.swapaxes(-1, -2)
