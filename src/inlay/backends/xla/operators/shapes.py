"""Operators that only move elements: views, joins, splits, paddings; and arrays made from nothing but sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from inlay.backends.xla.operators.table import Call, Value, axis_of, cast, jnp, lax, repeated, takes


@takes("aten.sym_size.int", "aten.size.int")
def size(call: Call, x: Value, axis: int) -> int:
    return int(x.shape[axis])


@takes("aten.sym_numel.default", "aten.numel.default")
def elements(call: Call, x: Value) -> int:
    return math.prod(x.shape)


@takes("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten._reshape_copy.default")
def reshape(call: Call, x: Value, shape: Sequence[int]) -> Value:
    return jnp.reshape(x, tuple(shape))


@takes("aten.reshape_as.default", "aten.view_as.default")
def reshape_as(call: Call, x: Value, other: Value) -> Value:
    return jnp.reshape(x, other.shape)


@takes("aten.permute.default", "aten.permute_copy.default")
def permute(call: Call, x: Value, order: Sequence[int]) -> Value:
    return jnp.transpose(x, [axis_of(axis, x.ndim) for axis in order])


@takes("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default", "aten.transpose_copy.int")
def transpose(call: Call, x: Value, one: int, two: int) -> Value:
    return jnp.swapaxes(x, one, two) if x.ndim else x


@takes("aten.t.default", "aten.numpy_T.default")
def transposed(call: Call, x: Value) -> Value:
    return jnp.transpose(x)


@takes("aten.mT.default", "aten.matrix_H.default", "aten.adjoint.default")
def matrix_transposed(call: Call, x: Value) -> Value:
    return jnp.swapaxes(x, -1, -2)


@takes("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def move_axis(call: Call, x: Value, source: Any, destination: Any) -> Value:
    return jnp.moveaxis(x, source, destination)


@takes("aten.squeeze.default")
def squeeze(call: Call, x: Value) -> Value:
    return jnp.squeeze(x)


@takes("aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze_copy.dim", "aten.squeeze_copy.dims")
def squeeze_axes(call: Call, x: Value, axes: Any) -> Value:
    named = axes if isinstance(axes, (list, tuple)) else [axes]
    found = {axis_of(axis, x.ndim) for axis in named} if x.ndim else set()
    return jnp.squeeze(x, tuple(axis for axis in found if x.shape[axis] == 1))


@takes("aten.unsqueeze.default", "aten.unsqueeze_copy.default")
def unsqueeze(call: Call, x: Value, axis: int) -> Value:
    return jnp.expand_dims(x, axis % (x.ndim + 1))


@takes("aten.flatten.using_ints")
def flatten(call: Call, x: Value, first: int = 0, last: int = -1) -> Value:
    low, high = axis_of(first, x.ndim), axis_of(last, x.ndim)
    return jnp.reshape(x, (*x.shape[:low], math.prod(x.shape[low : high + 1]), *x.shape[high + 1 :]))


@takes("aten.unflatten.int")
def unflatten(call: Call, x: Value, axis: int, sizes: Sequence[int]) -> Value:
    at = axis_of(axis, x.ndim)
    return jnp.reshape(x, (*x.shape[:at], *_filled(sizes, x.shape[at]), *x.shape[at + 1 :]))


def _filled(sizes: Sequence[int], whole: int) -> list[int]:
    """Sizes with their one -1 worked out."""
    known = math.prod(size for size in sizes if size != -1)
    return [whole // known if size == -1 else size for size in sizes]


@takes("aten.expand.default", "aten.broadcast_to.default", "aten.expand_copy.default")
def expand(call: Call, x: Value, shape: Sequence[int], *, implicit: bool = False) -> Value:
    own = (1,) * (len(shape) - x.ndim) + x.shape
    return jnp.broadcast_to(x, tuple(old if new == -1 else new for old, new in zip(own, shape, strict=True)))


@takes("aten.expand_as.default")
def expand_as(call: Call, x: Value, other: Value) -> Value:
    return jnp.broadcast_to(x, other.shape)


@takes("aten.broadcast_tensors.default")
def broadcast_all(call: Call, items: Sequence[Value]) -> Value:
    return jnp.broadcast_arrays(*items)


@takes("aten.repeat.default", "aten.tile.default")
def repeat(call: Call, x: Value, times: Sequence[int]) -> Value:
    return jnp.tile(x, tuple(times))


@takes("aten.repeat_interleave.self_int")
def repeat_each(call: Call, x: Value, times: int, dim: int | None = None, *, output_size: Any = None) -> Value:
    return jnp.repeat(x, times, axis=dim)


@takes("aten.roll.default")
def roll(call: Call, x: Value, shifts: Any, dims: Any = ()) -> Value:
    moved = tuple(shifts) if isinstance(shifts, (list, tuple)) else (shifts,)
    axes = tuple(dims) if isinstance(dims, (list, tuple)) else (dims,)
    return jnp.roll(x, moved, axes) if axes else jnp.roll(x, moved[0])


@takes("aten.flip.default")
def flip(call: Call, x: Value, dims: Sequence[int]) -> Value:
    return jnp.flip(x, tuple(dims))


@takes("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def concatenate(call: Call, items: Sequence[Value], dim: int = 0) -> Value:
    whole = [item for item in items if item.shape != (0,)] or list(items)[:1]  # torch leaves empty vectors out
    return jnp.concatenate([cast(item, call.dtype) for item in whole], axis=dim)


@takes("aten.stack.default")
def stack(call: Call, items: Sequence[Value], dim: int = 0) -> Value:
    return jnp.stack([cast(item, call.dtype) for item in items], axis=dim)


@takes("aten.hstack.default")
def stack_columns(call: Call, items: Sequence[Value]) -> Value:
    return jnp.hstack([cast(item, call.dtype) for item in items])


@takes("aten.vstack.default")
def stack_rows(call: Call, items: Sequence[Value]) -> Value:
    return jnp.vstack([cast(item, call.dtype) for item in items])


def _parts(x: Value, sizes: Sequence[int], dim: int) -> list[Value]:
    """Consecutive parts of these sizes along an axis."""
    parts, start = [], 0
    for size in sizes:
        parts.append(lax.slice_in_dim(x, start, start + size, axis=axis_of(dim, x.ndim)))
        start += size
    return parts


@takes("aten.split.Tensor")
def split(call: Call, x: Value, size: int, dim: int = 0) -> Value:
    whole = x.shape[axis_of(dim, x.ndim)]
    count = max(1, -(-whole // size)) if size else 1
    return _parts(x, [min(size, whole - index * size) for index in range(count)], dim)


@takes("aten.split.sizes", "aten.split_with_sizes.default", "aten.split_with_sizes_copy.default")
def split_sizes(call: Call, x: Value, sizes: Sequence[int], dim: int = 0) -> Value:
    return _parts(x, sizes, dim)


@takes("aten.chunk.default")
def chunk(call: Call, x: Value, count: int, dim: int = 0) -> Value:
    return split(call, x, -(-x.shape[axis_of(dim, x.ndim)] // count), dim)


@takes("aten.tensor_split.sections")
def tensor_split(call: Call, x: Value, count: int, dim: int = 0) -> Value:
    return jnp.array_split(x, count, axis=dim)


@takes("aten.unbind.int", "aten.unbind_copy.int")
def unbind(call: Call, x: Value, dim: int = 0) -> Value:
    axis = axis_of(dim, x.ndim)
    return [lax.index_in_dim(x, index, axis, keepdims=False) for index in range(x.shape[axis])]


@takes("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_axis(call: Call, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    low, high = bounds(x.shape[axis_of(dim, x.ndim)], start, end)
    return lax.slice_in_dim(x, low, high, stride=step, axis=axis_of(dim, x.ndim))


def bounds(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    """First and end of a slice, as Python reads them, never crossed."""
    low, high, _ = slice(start, end).indices(size)
    return low, max(low, high)


@takes("aten.narrow.default")
def narrow(call: Call, x: Value, dim: int, start: int, length: int) -> Value:
    first = start % x.shape[dim] if start < 0 else start
    return lax.slice_in_dim(x, first, first + length, axis=axis_of(dim, x.ndim))


@takes("aten.select.int", "aten.select_copy.int")
def select(call: Call, x: Value, dim: int, index: int) -> Value:
    return lax.index_in_dim(x, index, axis_of(dim, x.ndim), keepdims=False)


@takes("aten.diagonal.default")
def diagonal(call: Call, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    return jnp.diagonal(x, offset, dim1, dim2)


@takes("aten.tril.default")
def lower_triangle(call: Call, x: Value, diagonal: int = 0) -> Value:
    return jnp.tril(x, diagonal)


@takes("aten.triu.default")
def upper_triangle(call: Call, x: Value, diagonal: int = 0) -> Value:
    return jnp.triu(x, diagonal)


@takes("aten.unfold.default")
def windows(call: Call, x: Value, dim: int, size: int, step: int) -> Value:
    axis = axis_of(dim, x.ndim)
    starts = range(0, x.shape[axis] - size + 1, step)
    parts = [jnp.moveaxis(lax.slice_in_dim(x, start, start + size, axis=axis), axis, -1) for start in starts]
    return jnp.stack(parts, axis)


@takes("aten.pixel_shuffle.default")
def pixel_shuffle(call: Call, x: Value, factor: int) -> Value:
    *outer, channels, height, width = x.shape
    parts = x.reshape(*outer, channels // factor**2, factor, factor, height, width)
    first = len(outer)
    order = [*range(first + 1), first + 3, first + 1, first + 4, first + 2]
    return parts.transpose(order).reshape(*outer, channels // factor**2, height * factor, width * factor)


@takes("aten.pixel_unshuffle.default")
def pixel_unshuffle(call: Call, x: Value, factor: int) -> Value:
    *outer, channels, height, width = x.shape
    parts = x.reshape(*outer, channels, height // factor, factor, width // factor, factor)
    first = len(outer)
    order = [*range(first + 1), first + 2, first + 4, first + 1, first + 3]
    return parts.transpose(order).reshape(*outer, channels * factor**2, height // factor, width // factor)


@takes("aten.channel_shuffle.default")
def channel_shuffle(call: Call, x: Value, groups: int) -> Value:
    batch, channels, *space = x.shape
    return x.reshape(batch, groups, channels // groups, *space).swapaxes(1, 2).reshape(x.shape)


@takes("aten.constant_pad_nd.default")
def pad_constant(call: Call, x: Value, pads: Sequence[int], value: Any = 0) -> Value:
    return lax.pad(x, cast(value, call.dtype), [(*pair, 0) for pair in _pairs(pads, x.ndim)])


@takes("aten.pad.default")
def pad(call: Call, x: Value, pads: Sequence[int], mode: str = "constant", value: Any = None) -> Value:
    if mode == "constant":
        return pad_constant(call, x, pads, 0 if value is None else value)
    return jnp.pad(x, _pairs(pads, x.ndim), mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])


@takes("aten.reflection_pad1d.default", "aten.reflection_pad2d.default", "aten.reflection_pad3d.default")
def pad_reflected(call: Call, x: Value, pads: Sequence[int]) -> Value:
    return jnp.pad(x, _pairs(pads, x.ndim), mode="reflect")


@takes("aten.replication_pad1d.default", "aten.replication_pad2d.default", "aten.replication_pad3d.default")
def pad_replicated(call: Call, x: Value, pads: Sequence[int]) -> Value:
    return jnp.pad(x, _pairs(pads, x.ndim), mode="edge")


def _pairs(pads: Sequence[int], rank: int) -> list[tuple[int, int]]:
    """Before and after for each axis from torch's list, which begins at the last axis."""
    given = [(pads[index], pads[index + 1]) for index in range(0, len(pads), 2)]
    return [(0, 0)] * (rank - len(given)) + given[::-1]


@takes("aten.full.default", "aten.new_full.default", "aten.full_like.default")
def full(call: Call, first: Any, second: Any, third: Any = None, **_: Any) -> Value:
    """(sizes, value), (array, sizes, value) or (array, value)."""
    shape, value = (second, third) if third is not None else (getattr(first, "shape", first), second)
    return jnp.full(tuple(shape), cast(value, call.dtype))


@takes(
    "aten.zeros.default", "aten.new_zeros.default", "aten.zeros_like.default", "aten.empty.memory_format",
    "aten.empty_like.default", "aten.new_empty.default", "aten.empty_permuted.default", "aten.empty_strided.default",
    "aten.new_empty_strided.default",
)  # fmt: skip
def zeros(call: Call, first: Any, second: Any = None, *_: Any, **__: Any) -> Value:
    return jnp.zeros(_shape(first, second), call.dtype)


@takes("aten.ones.default", "aten.new_ones.default", "aten.ones_like.default")
def ones(call: Call, first: Any, second: Any = None, *_: Any, **__: Any) -> Value:
    return jnp.ones(_shape(first, second), call.dtype)


def _shape(first: Any, second: Any) -> tuple[int, ...]:
    """(sizes), (array) or (array, sizes)."""
    if not hasattr(first, "shape"):
        return tuple(first)
    return tuple(second) if isinstance(second, (list, tuple)) else tuple(first.shape)


@takes("aten.scalar_tensor.default", "aten.tensor.int", "aten.tensor.float", "aten.tensor.bool")
def scalar(call: Call, value: Any, **_: Any) -> Value:
    return cast(value, call.dtype)


@takes("aten.arange.default", "aten.arange.start", "aten.arange.start_step")
def arange(call: Call, first: Any, end: Any = None, step: Any = 1, **_: Any) -> Value:
    begin, stop = (0, first) if end is None else (first, end)
    return (jnp.arange(math.ceil((stop - begin) / step)) * step + begin).astype(call.dtype)


@takes("aten.linspace.default")
def linspace(call: Call, start: Any, end: Any, steps: int, **_: Any) -> Value:
    return jnp.linspace(start, end, steps, dtype=call.dtype)


@takes("aten.eye.default", "aten.eye.m")
def eye(call: Call, rows: int, columns: int | None = None, **_: Any) -> Value:
    return jnp.eye(rows, columns, dtype=call.dtype)


@takes("aten.meshgrid.default", "aten.meshgrid.indexing")
def meshgrid(call: Call, items: Sequence[Value], *, indexing: str = "ij") -> Value:
    return jnp.meshgrid(*map(jnp.atleast_1d, items), indexing=indexing)


@takes("aten.fill.Scalar", "aten.fill.Tensor")
def filled(call: Call, x: Value, value: Value) -> Value:
    return jnp.full(x.shape, cast(value, call.dtype))


@takes("aten.zero.default")
def zeroed(call: Call, x: Value) -> Value:
    return jnp.zeros(x.shape, call.dtype)


@takes("aten.copy.default")
def copied(call: Call, x: Value, source: Value, non_blocking: bool = False) -> Value:
    return jnp.broadcast_to(cast(source, call.dtype), x.shape)


@takes("aten.im2col.default")
def columns(call: Call, x: Value, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Value:
    batch, channels, height, width = x.shape
    (k0, k1), (d0, d1), (p0, p1), (s0, s1) = (repeated(item, 2) for item in (kernel, dilation, padding, stride))
    held = jnp.pad(x, ((0, 0), (0, 0), (p0, p0), (p1, p1)))
    rows = (height + 2 * p0 - d0 * (k0 - 1) - 1) // s0 + 1
    lines = (width + 2 * p1 - d1 * (k1 - 1) - 1) // s1 + 1
    parts = [
        held[:, :, i * d0 : i * d0 + (rows - 1) * s0 + 1 : s0, j * d1 : j * d1 + (lines - 1) * s1 + 1 : s1]
        for i in range(k0)
        for j in range(k1)
    ]
    return jnp.stack(parts, 2).reshape(batch, channels * k0 * k1, rows * lines)
