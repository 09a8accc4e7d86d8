"""Operators that look along axes: sums, extremes, statistics, softmax, running sums, sorting, Fourier transforms."""

from __future__ import annotations

import math
from typing import Any

from inlay.backends.xla.operators.table import Call, Value, axes_of, axis_of, cast, jnp, lax, nn, takes


@takes("aten.sum.default", "aten.sum.dim_IntList")
def total(call: Call, x: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    return jnp.sum(cast(x, call.dtype), axes_of(dim, x.ndim), dtype=call.dtype, keepdims=keepdim)


@takes("aten.mean.default", "aten.mean.dim")
def mean(call: Call, x: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    return jnp.mean(cast(x, call.dtype), axes_of(dim, x.ndim), keepdims=keepdim)


@takes("aten.prod.default")
def product(call: Call, x: Value, **_: Any) -> Value:
    return jnp.prod(cast(x, call.dtype))


@takes("aten.prod.dim_int")
def product_along(call: Call, x: Value, dim: int, keepdim: bool = False, **_: Any) -> Value:
    return jnp.prod(cast(x, call.dtype), dim, keepdims=keepdim)


@takes("aten.any.default", "aten.any.dim", "aten.any.dims")
def some(call: Call, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return jnp.any(cast(x, "bool"), axes_of(dim, x.ndim), keepdims=keepdim).astype(call.dtype)


@takes("aten.all.default", "aten.all.dim", "aten.all.dims")
def every(call: Call, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return jnp.all(cast(x, "bool"), axes_of(dim, x.ndim), keepdims=keepdim).astype(call.dtype)


@takes("aten.amax.default")
def largest(call: Call, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return jnp.max(x, axes_of(dim, x.ndim), keepdims=keepdim)


@takes("aten.amin.default")
def smallest(call: Call, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return jnp.min(x, axes_of(dim, x.ndim), keepdims=keepdim)


@takes("aten.max.default")
def largest_of_all(call: Call, x: Value) -> Value:
    return jnp.max(x)


@takes("aten.min.default")
def smallest_of_all(call: Call, x: Value) -> Value:
    return jnp.min(x)


@takes("aten.max.dim")
def largest_with_place(call: Call, x: Value, dim: int, keepdim: bool = False) -> Value:
    return jnp.max(x, dim, keepdims=keepdim), jnp.argmax(x, dim, keepdims=keepdim).astype("int64")


@takes("aten.min.dim")
def smallest_with_place(call: Call, x: Value, dim: int, keepdim: bool = False) -> Value:
    return jnp.min(x, dim, keepdims=keepdim), jnp.argmin(x, dim, keepdims=keepdim).astype("int64")


@takes("aten.argmax.default")
def place_of_largest(call: Call, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return jnp.argmax(x, dim, keepdims=keepdim).astype("int64")


@takes("aten.argmin.default")
def place_of_smallest(call: Call, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return jnp.argmin(x, dim, keepdims=keepdim).astype("int64")


def _variance(x: Value, dim: Any, correction: Any, keepdim: bool) -> tuple[Value, Value]:
    """Variance and mean over these axes; the divisor is the count less the correction."""
    axes = axes_of(dim, x.ndim)
    middle = jnp.mean(x, axes, keepdims=True)
    count = math.prod(x.shape[axis] for axis in axes)
    spread = jnp.sum(jnp.square(x - middle), axes, keepdims=keepdim) / cast(max(0, count - correction), x.dtype.name)
    return spread, middle if keepdim else jnp.squeeze(middle, axes)


@takes("aten.var.correction", "aten.var.dim", "aten.var.default")
def variance(call: Call, x: Value, dim: Any = None, *rest: Any, **named: Any) -> Value:
    return _variance(x, *_statistics(dim, rest, named))[0]


@takes("aten.std.correction", "aten.std.dim", "aten.std.default")
def deviation(call: Call, x: Value, dim: Any = None, *rest: Any, **named: Any) -> Value:
    return jnp.sqrt(_variance(x, *_statistics(dim, rest, named))[0])


@takes("aten.var_mean.correction", "aten.var_mean.dim", "aten.var_mean.default")
def variance_and_mean(call: Call, x: Value, dim: Any = None, *rest: Any, **named: Any) -> Value:
    return _variance(x, *_statistics(dim, rest, named))


def _statistics(dim: Any, rest: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any, bool]:
    """Axes, correction and keepdim of the overloads, whose third argument is `unbiased` (default true) or `correction`."""
    if isinstance(dim, bool):  # (x, unbiased)
        return None, int(dim), False
    correction = named.get("correction", named.get("unbiased", rest[0] if rest else 1))
    return dim, 1 if correction is None else int(correction), bool(named.get("keepdim", rest[1] if len(rest) > 1 else False))


@takes("aten.linalg_vector_norm.default")
def vector_norm(call: Call, x: Value, order: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    axes, size = axes_of(dim, x.ndim), jnp.abs(cast(x, call.dtype))
    if order == math.inf:
        return jnp.max(size, axes, keepdims=keepdim)
    if order == -math.inf:
        return jnp.min(size, axes, keepdims=keepdim)
    if order == 0:
        return jnp.sum(size != 0, axes, keepdims=keepdim).astype(call.dtype)
    if order == 1:
        return jnp.sum(size, axes, keepdims=keepdim)
    if order == 2:
        return jnp.sqrt(jnp.sum(size * size, axes, keepdims=keepdim))
    return jnp.power(jnp.sum(jnp.power(size, order), axes, keepdims=keepdim), 1 / order)


@takes("aten.norm.ScalarOpt_dim", "aten.norm.Scalar")
def norm(call: Call, x: Value, order: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    return vector_norm(call, x, 2 if order is None else order, dim, keepdim)


@takes("aten.softmax.int", "aten._softmax.default", "aten._safe_softmax.default")
def softmax(call: Call, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    return nn.softmax(cast(x, call.dtype), axis_of(dim, x.ndim) if x.ndim else None)


@takes("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(call: Call, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    return nn.log_softmax(cast(x, call.dtype), axis_of(dim, x.ndim) if x.ndim else None)


@takes("aten.logsumexp.default")
def log_sum(call: Call, x: Value, dim: Any, keepdim: bool = False) -> Value:
    return nn.logsumexp(cast(x, call.dtype), axes_of(dim, x.ndim), keepdims=keepdim)


@takes("aten.cumsum.default")
def running_sum(call: Call, x: Value, dim: int, **_: Any) -> Value:
    held = cast(x, call.dtype)
    return lax.cumsum(held, axis_of(dim, x.ndim)) if x.ndim else held


@takes("aten.cumprod.default")
def running_product(call: Call, x: Value, dim: int, **_: Any) -> Value:
    held = cast(x, call.dtype)
    return lax.cumprod(held, axis_of(dim, x.ndim)) if x.ndim else held


@takes("aten.diff.default")
def difference(call: Call, x: Value, n: int = 1, dim: int = -1, prepend: Value = None, append: Value = None) -> Value:
    parts = [part for part in (prepend, x, append) if part is not None]
    held = jnp.concatenate(parts, axis_of(dim, x.ndim)) if len(parts) > 1 else x
    for _ in range(n):
        size = held.shape[axis_of(dim, x.ndim)]
        axis = axis_of(dim, x.ndim)
        later, earlier = (lax.slice_in_dim(held, first, max(first, size - 1 + first), axis=axis) for first in (1, 0))
        if size == 0:
            return held
        held = later ^ earlier if held.dtype == bool else later - earlier
    return held


@takes("aten.sort.default", "aten.sort.stable")
def sort(call: Call, x: Value, *rest: Any, **named: Any) -> Value:
    plain = [item for item in rest if item is not None]
    if "stable" in named and plain and isinstance(plain[0], bool):
        plain = [named.get("dim", -1), *plain]
    dim = named.get("dim", plain[0] if plain else -1)
    falling = bool(named.get("descending", plain[1] if len(plain) > 1 else False))
    order = order_of(x, dim, falling)
    return jnp.take_along_axis(x, order, dim), order


def order_of(x: Value, dim: int, falling: bool) -> Value:
    """Places of the elements in order along an axis, equal ones as they come."""
    return jnp.argsort(x, axis=dim, stable=True, descending=falling).astype("int64")


@takes("aten.argsort.default", "aten.argsort.stable")
def argsort(call: Call, x: Value, *rest: Any, **named: Any) -> Value:
    return sort(call, x, *rest, **named)[1]


@takes("aten.topk.default")
def best(call: Call, x: Value, count: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Value:
    order = lax.slice_in_dim(order_of(x, dim, largest), 0, count, axis=axis_of(dim, x.ndim))
    return jnp.take_along_axis(x, order, dim), order


@takes("aten.bucketize.Tensor")
def bucket(call: Call, x: Value, limits: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    return jnp.searchsorted(limits, x, side="right" if right else "left").astype(call.dtype)


@takes("aten.histc.default")
def histogram(call: Call, x: Value, bins: int = 100, low: Any = 0, high: Any = 0) -> Value:
    flat = jnp.ravel(x)
    least, most = (cast(low, call.dtype), cast(high, call.dtype)) if low != high else (jnp.min(flat), jnp.max(flat))
    width = jnp.where(most > least, most - least, cast(1, call.dtype))
    place = jnp.floor((flat - least) * bins / width).astype("int64")
    place = jnp.where(flat == most, bins - 1, place)
    inside = (flat >= least) & (flat <= most)
    counted = jnp.zeros(bins, call.dtype)
    return counted.at[jnp.clip(place, 0, bins - 1)].add(inside.astype(call.dtype))


def _scaled(result: Value, axes: tuple[int, ...], shape: tuple[int, ...], norm: Any, forward: bool) -> Value:
    """torch's normalisation number: 0 none, 1 by the square root of the count, 2 by the count."""
    count = math.prod(shape[axis] for axis in axes)
    factor = {0: 1.0, 1: 1 / math.sqrt(count), 2: 1 / count}[int(norm)]
    return result if factor == 1.0 else result * cast(factor, result.dtype.name)


@takes("aten._fft_c2c.default")
def fourier(call: Call, x: Value, dim: Any, normalization: int, forward: bool) -> Value:
    axes = axes_of(dim, x.ndim)
    result = jnp.fft.fftn(x, axes=axes) if forward else jnp.fft.ifftn(x, axes=axes, norm="forward")
    return _scaled(result, axes, x.shape, normalization, forward).astype(call.dtype)


def _line(name: str) -> None:
    """A transform along one axis, under the name that torch and numpy share."""

    def operator(call: Call, x: Value, n: int | None = None, dim: int = -1, norm: str | None = None) -> Value:
        return getattr(jnp.fft, name)(x, n, dim, norm).astype(call.dtype)

    takes(f"aten.fft_{name}.default")(operator)


for _name in ("fft", "ifft", "rfft", "irfft"):
    _line(_name)


@takes("aten.fft_fftn.default")
def fourier_axes(call: Call, x: Value, s: Any = None, dim: Any = None, norm: str | None = None) -> Value:
    return jnp.fft.fftn(x, s=s, axes=None if dim is None else tuple(dim), norm=norm).astype(call.dtype)


@takes("aten.fft_fft2.default")
def fourier_plane(call: Call, x: Value, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Value:
    return jnp.fft.fftn(x, s=s, axes=tuple(dim), norm=norm).astype(call.dtype)
