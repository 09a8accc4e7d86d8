"""The table of operators: what torch calls one, to the function that computes it with JAX. Imports no SDK.

`support` reads its names, `lower` calls its functions while JAX traces them. The rows are in the other files of this folder.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Value = Any
"""An array that JAX traces, or a number of the graph."""
Operator = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Call:
    """What torch says of one node: the dtypes of its results, and the one that its operands have in common."""

    dtypes: tuple[str, ...]
    common: str

    @property
    def dtype(self) -> str:
        """The dtype of the first result, in which torch computes most operators."""
        return self.dtypes[0]


class Late:
    """A module that is imported when something of it is used first."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


jnp: Any = Late("jax.numpy")
lax: Any = Late("jax.lax")
nn: Any = Late("jax.nn")
special: Any = Late("jax.scipy.special")

TABLE: dict[str, Operator] = {}


def takes(*names: str) -> Callable[[Operator], Operator]:
    """Enter a function under what torch calls the operator, with its overload (`aten.add.Tensor`)."""

    def enter(function: Operator) -> Operator:
        for name in names:
            TABLE[name] = function
        return function

    return enter


def cast(value: Value, dtype: str) -> Value:
    """An array of this dtype; a number becomes one without axes."""
    return jnp.asarray(value).astype(dtype) if hasattr(value, "dtype") else jnp.asarray(value, dtype)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front; a value without axes has one, as for torch."""
    return axis % max(rank, 1)


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, all of them where none are named."""
    if axes is None or axes == []:
        return tuple(range(rank))
    named = axes if isinstance(axes, (list, tuple)) else [axes]
    return tuple(axis_of(axis, rank) for axis in named) if rank else ()


def repeated(value: Any, count: int) -> list[int]:
    """One number for each axis, from a number or a list that may hold a single one."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return items * count if len(items) == 1 else items
