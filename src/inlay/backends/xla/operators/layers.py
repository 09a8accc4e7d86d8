"""Operators that are whole layers: normalisations, pooling, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from inlay.backends.xla.operators.table import Call, Value, cast, jnp, lax, repeated, takes


def _normed(x: Value, axes: tuple[int, ...], epsilon: float) -> tuple[Value, Value, Value]:
    """Centred and scaled values, the mean, and one over the deviation."""
    middle = jnp.mean(x, axes, keepdims=True)
    scale = lax.rsqrt(jnp.mean(jnp.square(x - middle), axes, keepdims=True) + cast(epsilon, x.dtype.name))
    return (x - middle) * scale, middle, scale


def _affine(x: Value, weight: Value, bias: Value, shape: Sequence[int]) -> Value:
    if weight is not None:
        x = x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


@takes("aten.layer_norm.default")
def layer_norm(
    call: Call, x: Value, shape: Sequence[int], weight: Value = None, bias: Value = None, eps: float = 1e-5, *_: Any
) -> Value:  # fmt: skip
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    return _affine(_normed(x, axes, eps)[0], weight, bias, tuple(shape))


@takes("aten.native_layer_norm.default")
def layer_norm_with_statistics(
    call: Call, x: Value, shape: Sequence[int], weight: Value, bias: Value, eps: float
) -> Value:  # fmt: skip
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    result, middle, scale = _normed(x, axes, eps)
    return _affine(result, weight, bias, tuple(shape)), middle, scale


@takes("aten.rms_norm.default")
def rms_norm(call: Call, x: Value, shape: Sequence[int], weight: Value = None, eps: float | None = None) -> Value:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    least = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    return _affine(x * lax.rsqrt(jnp.mean(x * x, axes, keepdims=True) + cast(least, call.dtype)), weight, None, tuple(shape))


@takes("aten.group_norm.default")
def group_norm(
    call: Call, x: Value, groups: int, weight: Value = None, bias: Value = None, eps: float = 1e-5, *_: Any
) -> Value:  # fmt: skip
    batch, channels, *space = x.shape
    parts = x.reshape(batch, groups, channels // groups, *space)
    result = _normed(parts, tuple(range(2, parts.ndim)), eps)[0].reshape(x.shape)
    return _affine(result, weight, bias, (1, channels, *(1,) * len(space)))


@takes("aten.instance_norm.default")
def instance_norm(
    call: Call, x: Value, weight: Value, bias: Value, mean: Value, var: Value, use_input_stats: bool, momentum: float,
    eps: float, *_: Any,
) -> Value:  # fmt: skip
    if not use_input_stats:
        return batch_norm(call, x, weight, bias, mean, var, False, momentum, eps)
    shape = (1, x.shape[1], *(1,) * (x.ndim - 2))
    return _affine(_normed(x, tuple(range(2, x.ndim)), eps)[0], weight, bias, shape)


@takes("aten.batch_norm.default")
def batch_norm(
    call: Call, x: Value, weight: Value, bias: Value, mean: Value, var: Value, training: bool, momentum: float, eps: float,
    *_: Any,
) -> Value:  # fmt: skip
    """In evaluation mode, by the statistics kept; one that has none takes them from the batch."""
    shape = (1, x.shape[1], *(1,) * (x.ndim - 2))
    if training or mean is None:
        return _affine(_normed(x, (0, *range(2, x.ndim)), eps)[0], weight, bias, shape)
    scale = lax.rsqrt(var + cast(eps, var.dtype.name))
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return x * scale.reshape(shape) + shift.reshape(shape)


@takes("aten._native_batch_norm_legit_no_training.default")
def batch_norm_with_statistics(
    call: Call, x: Value, weight: Value, bias: Value, mean: Value, var: Value, momentum: float, eps: float
) -> Value:  # fmt: skip
    empty = jnp.zeros(0, x.dtype)
    return batch_norm(call, x, weight, bias, mean, var, False, momentum, eps), empty, empty


def _pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, rounds_up: bool) -> int:
    """How many windows; one that would begin behind the input and its first padding is none."""
    free = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-free // stride) if rounds_up else free // stride) + 1
    return count - 1 if rounds_up and (count - 1) * stride >= size + padding else count


class _Pool:
    """Kernel, stride and padding for each axis of space, and what they come to for these sizes."""

    def __init__(self, x: Value, rank: int, kernel: Any, stride: Any, padding: Any, dilation: Any, rounds_up: bool) -> None:
        self.sizes = x.shape[-rank:]
        self.kernel = repeated(kernel, rank)
        self.stride = self.kernel if stride is None or stride == [] else repeated(stride, rank)
        self.padding, self.dilation = repeated(padding, rank), repeated(dilation, rank)
        parts = zip(self.sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        self.counts = [_pooled_size(*part, rounds_up) for part in parts]
        reach = [
            (count - 1) * step + spread * (size - 1) + 1
            for count, step, spread, size in zip(self.counts, self.stride, self.dilation, self.kernel, strict=True)
        ]
        self.pads = [
            (low, whole - size - low) for low, whole, size in zip(self.padding, reach, self.sizes, strict=True)
        ]  # the second may be negative: what no window reaches is cut off

    def reduce(self, x: Value, start: Value, function: Any) -> Value:
        """One reduction over all windows."""
        outer = x.ndim - len(self.kernel)
        padded = lax.pad(x, start, [(0, 0, 0)] * outer + [(*pair, 0) for pair in self.pads])
        one = (1,) * outer
        return lax.reduce_window(
            padded, start, function, (*one, *self.kernel), (*one, *self.stride), "VALID", window_dilation=(*one, *self.dilation)
        )


def _max_pool(rank: int) -> None:
    def operator(
        call: Call, x: Value, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
    ) -> Value:
        whole = call.dtype.startswith(("int", "uint"))
        least = cast(jnp.iinfo(call.dtype).min if whole else -math.inf, call.dtype)
        return _Pool(x, rank, kernel, stride, padding, dilation, ceil_mode).reduce(x, least, lax.max)

    takes(f"aten.max_pool{rank}d.default")(operator)


def _average_pool(rank: int) -> None:
    def operator(
        call: Call, x: Value, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Value:  # fmt: skip
        pool = _Pool(x, rank, kernel, stride, padding, 1, ceil_mode)
        sums = pool.reduce(x, cast(0, call.dtype), lax.add)
        if divisor_override is not None:
            return sums / cast(divisor_override, call.dtype)
        divisor = np.ones((), np.float64)
        for axis in range(rank):
            starts = np.arange(pool.counts[axis]) * pool.stride[axis] - pool.padding[axis]
            low, high = (pool.padding[axis],) * 2 if count_include_pad else (0, 0)
            ends = np.minimum(starts + pool.kernel[axis], pool.sizes[axis] + high)
            divisor = divisor[..., None] * (ends - np.maximum(starts, -low))
        return sums / cast(divisor, call.dtype)

    takes(f"aten.avg_pool{rank}d.default")(operator)


def _adaptive_pool(rank: int, kind: str) -> None:
    def operator(call: Call, x: Value, sizes: Any) -> Value:
        for axis, wanted in zip(range(x.ndim - rank, x.ndim), repeated(sizes, rank), strict=True):
            x = _adapted(x, axis, x.shape[axis] if wanted is None else wanted, kind)
        return x

    takes(f"aten.adaptive_{kind}_pool{rank}d.default", *([f"aten._adaptive_{kind}_pool{rank}d.default"] if rank > 1 else []))(
        operator
    )


def _adapted(x: Value, axis: int, count: int, kind: str) -> Value:
    """Along one axis: window i reaches from floor(i * size / count) to ceil((i + 1) * size / count)."""
    size, reduce = x.shape[axis], jnp.mean if kind == "avg" else jnp.max
    if size % count == 0:
        return reduce(x.reshape(*x.shape[:axis], count, size // count, *x.shape[axis + 1 :]), axis + 1)
    parts = [
        reduce(lax.slice_in_dim(x, index * size // count, -(-(index + 1) * size // count), axis=axis), axis)
        for index in range(count)
    ]
    return jnp.stack(parts, axis)


for _rank in (1, 2, 3):
    _max_pool(_rank)
    _average_pool(_rank)
    _adaptive_pool(_rank, "avg")


def _target(x: Value, sizes: Any, factors: Any) -> list[tuple[int, int, float | None]]:
    """For each axis of space: size now, size wanted, and the factor where one was given."""
    now = x.shape[2:]
    if sizes is not None:
        return [(old, new, None) for old, new in zip(now, sizes, strict=True)]
    return [(old, int(old * factor), factor) for old, factor in zip(now, factors, strict=True)]


def _places(old: int, new: int, factor: float | None, aligned: bool) -> np.ndarray[Any, Any]:
    """Where each new element lies among the old ones."""
    if aligned:
        return np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    return (np.arange(new) + 0.5) * (old / new if factor is None else 1 / factor) - 0.5


def _blend(x: Value, axis: int, picks: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]) -> Value:
    """A sum of picked elements along an axis, each with its weight."""
    shape = [1] * x.ndim
    shape[axis] = -1
    parts = [
        jnp.take(x, jnp.asarray(place), axis=axis, mode="clip") * cast(weight.reshape(shape), x.dtype.name)
        for place, weight in picks
    ]
    return sum(parts[1:], parts[0])


def _linear(x: Value, axis: int, old: int, new: int, factor: float | None, aligned: bool) -> Value:
    place = np.maximum(_places(old, new, factor, aligned), 0.0)
    low = np.minimum(place.astype(np.int64), old - 1)
    share = np.clip(place - low, 0.0, 1.0)
    return _blend(x, axis, [(low, 1 - share), (np.minimum(low + 1, old - 1), share)])


def _cubic(x: Value, axis: int, old: int, new: int, factor: float | None, aligned: bool) -> Value:
    place = _places(old, new, factor, aligned)
    low = np.floor(place).astype(np.int64)
    picks = []
    for offset in (-1, 0, 1, 2):
        away = np.abs(place - (low + offset))
        near = ((-0.75 + 2) * away - (-0.75 + 3)) * away * away + 1
        far = ((-0.75 * away + 5 * 0.75) * away - 8 * 0.75) * away + 4 * 0.75
        picks.append((np.clip(low + offset, 0, old - 1), np.where(away <= 1, near, far)))
    return _blend(x, axis, picks)


def _resize(name: str, along: Any) -> None:
    def operator(call: Call, x: Value, sizes: Any, align_corners: bool = False, factors: Any = None) -> Value:
        for axis, (old, new, factor) in enumerate(_target(x, sizes, factors), 2):
            if (old, factor) != (new, None) and (old, factor) != (new, 1.0):
                x = along(x, axis, old, new, factor, align_corners)
        return x

    takes(f"aten.{name}.vec")(operator)


_resize("upsample_linear1d", _linear)
_resize("upsample_bilinear2d", _linear)
_resize("upsample_trilinear3d", _linear)
_resize("upsample_bicubic2d", _cubic)


@takes("aten.upsample_nearest1d.vec", "aten.upsample_nearest2d.vec", "aten.upsample_nearest3d.vec")
def upsample_nearest(call: Call, x: Value, sizes: Any, factors: Any = None) -> Value:
    for axis, (old, new, factor) in enumerate(_target(x, sizes, factors), 2):
        # torch works this place out in float32
        scale = np.float32(old / new if factor is None else 1 / factor)
        place = np.minimum(np.floor(np.arange(new, dtype=np.float32) * scale).astype(np.int64), old - 1)
        x = jnp.take(x, jnp.asarray(place), axis=axis, mode="clip")
    return x


@takes("aten._weight_norm.default")
def weight_norm(call: Call, direction: Value, size: Value, dim: int = 0) -> Value:
    """A weight as its direction times its size, for each entry of one axis; of all axes together where that is -1."""
    axes = tuple(axis for axis in range(direction.ndim) if dim == -1 or axis != dim)
    return direction * (size / jnp.sqrt(jnp.sum(direction * direction, axes, keepdims=True)))
