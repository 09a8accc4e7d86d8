"""Operators that read and write at places given by values: embeddings, gathers, scatters, indexed reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inlay.backends.xla.operators.shapes import bounds
from inlay.backends.xla.operators.table import Call, Value, axis_of, cast, jnp, lax, takes


@takes("aten.embedding.default")
def embedding(call: Call, table: Value, ids: Value, *_: Any, **__: Any) -> Value:
    return jnp.take(table, ids, axis=0, mode="clip")


@takes("aten.index_select.default")
def index_select(call: Call, x: Value, dim: int, index: Value) -> Value:
    return jnp.take(x, index, axis=dim, mode="clip")


@takes("aten.index.Tensor")
def index(call: Call, x: Value, places: Sequence[Value]) -> Value:
    return x.at[_indices(places)].get(mode="clip")


@takes("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(call: Call, x: Value, places: Sequence[Value], value: Value, accumulate: bool = False) -> Value:
    """One mask as the only index takes a single value; `support` refuses others."""
    held = cast(value, call.dtype)
    if places[0] is not None and places[0].dtype == bool:
        mask = places[0].reshape(*places[0].shape, *(1,) * (x.ndim - places[0].ndim))
        return jnp.where(mask, x + held.reshape(()) if accumulate else held.reshape(()), x)
    target = x.at[_indices(places)]
    return target.add(held, mode="drop") if accumulate else target.set(held, mode="drop")


@takes("aten._unsafe_index.Tensor")
def unsafe_index(call: Call, x: Value, places: Sequence[Value]) -> Value:
    return index(call, x, places)


def _indices(places: Sequence[Value]) -> tuple[Any, ...]:
    return tuple(slice(None) if place is None else place for place in places)


@takes("aten.gather.default")
def gather(call: Call, x: Value, dim: int, places: Value, *, sparse_grad: bool = False) -> Value:
    if not x.ndim:
        return jnp.broadcast_to(x, places.shape)
    return x[_grid(places, dim, places)]


def _grid(places: Value, dim: int, along: Value) -> tuple[Value, ...]:
    """Indices of every element of `places`, with `along` in the place of one axis."""
    axis = axis_of(dim, places.ndim)
    return tuple(
        along if at == axis else lax.broadcasted_iota("int64", places.shape, at) for at in range(places.ndim)
    )  # fmt: skip


def _source(source: Value, places: Value, dtype: str) -> Value:
    """The part of a scatter's source that its places name."""
    if not hasattr(source, "ndim") or not source.ndim:
        return cast(source, dtype)
    return cast(lax.slice(source, (0,) * source.ndim, places.shape), dtype)


@takes("aten.scatter.src", "aten.scatter.value")
def scatter(call: Call, x: Value, dim: int, places: Value, source: Value) -> Value:
    return x.at[_grid(places, dim, places)].set(_source(source, places, call.dtype))


@takes("aten.scatter_add.default")
def scatter_add(call: Call, x: Value, dim: int, places: Value, source: Value) -> Value:
    return x.at[_grid(places, dim, places)].add(_source(source, places, call.dtype))


@takes("aten.index_add.default")
def index_add(call: Call, x: Value, dim: int, places: Value, source: Value, *, alpha: Any = 1) -> Value:
    added = cast(source, call.dtype) * cast(alpha, call.dtype)
    return x.at[(slice(None),) * axis_of(dim, x.ndim) + (places,)].add(added)


@takes("aten.index_copy.default")
def index_copy(call: Call, x: Value, dim: int, places: Value, source: Value) -> Value:
    return x.at[(slice(None),) * axis_of(dim, x.ndim) + (places,)].set(source)


@takes("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(call: Call, x: Value, dim: int, places: Value, value: Value) -> Value:
    return x.at[(slice(None),) * axis_of(dim, x.ndim) + (places,)].set(cast(value, call.dtype))


@takes("aten.slice_scatter.default")
def slice_scatter(
    call: Call, x: Value, source: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    axis = axis_of(dim, x.ndim)
    low, high = bounds(x.shape[axis], start, end)
    return x.at[(slice(None),) * axis + (slice(low, high, step),)].set(source)


@takes("aten.select_scatter.default")
def select_scatter(call: Call, x: Value, source: Value, dim: int, index: int) -> Value:
    return x.at[(slice(None),) * axis_of(dim, x.ndim) + (index,)].set(source)


@takes("aten.one_hot.default")
def one_hot(call: Call, x: Value, classes: int) -> Value:
    return (x[..., None] == jnp.arange(classes)).astype(call.dtype)


@takes("aten.take_along_dim.default")
def take_along(call: Call, x: Value, places: Value, dim: int | None = None) -> Value:
    return jnp.take_along_axis(x if dim is not None else x.ravel(), places, 0 if dim is None else dim)


@takes("aten.isin.Tensor_Tensor")
def is_among(call: Call, x: Value, items: Value, *, assume_unique: bool = False, invert: bool = False) -> Value:
    return jnp.isin(x, items, invert=invert)
