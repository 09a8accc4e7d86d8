"""A torch door: a call of each operator of the models as a sample, from the data of `zoo`."""

from __future__ import annotations

import math
from typing import Any

import torch

from inlay.errors import UnsupportedError
from inlay.runtime.conformance.samples import Sample, make_sample
from inlay.runtime.conformance.zoo import zoo_operators

MOST = 2**31 - 2
"""Whole numbers of a call are not beyond it."""

ORDERING = ("sort", "argsort", "topk", "msort")


def call_sample(name: str) -> Sample:
    """A call like the smallest one in the models, on random numbers in the same range. Raises UnsupportedError."""
    room: Any = torch.ops
    for part in name.split("."):
        if not hasattr(room, part):
            raise UnsupportedError(f"torch {torch.__version__} has no operator {name}", hint="run benchmarks/operators.py")
        room = getattr(room, part)
    random = torch.Generator().manual_seed(sum(name.encode()))
    positional, named = zoo_operators()[name]["call"]
    args = tuple(_argument(item, random) for item in positional)
    if name.split(".")[1] in ORDERING:  # which of two equal numbers comes first is nobody's promise
        args = tuple(_distinct(item, random) for item in args)
    return make_sample(f"{name} as in the models", name, room, args, _argument(named, random))


def _distinct(value: Any, random: Any) -> Any:
    """Whole numbers in any order, none twice, in the place of others."""
    if not isinstance(value, torch.Tensor) or value.is_floating_point() or value.dtype == torch.bool:
        return value
    return torch.randperm(value.numel(), generator=random).reshape(value.shape).to(value.dtype)


def _argument(item: Any, random: Any) -> Any:
    """An argument from its data, see `described` in benchmarks/operators.py."""
    match item:
        case {"tensor": [str() as dtype, list() as shape, low, high]}:
            return _tensor(getattr(torch, dtype), shape, low, high, random)
        case {"dtype": str() as name} | {"memory_format": str() as name} | {"layout": str() as name}:
            return getattr(torch, name)
        case {"device": str() as name}:
            return torch.device(name)
        case {"float": str() as text}:
            return float(text)
        case {"named": dict() as entries}:
            return {key: _argument(value, random) for key, value in entries.items()}
        case list():
            return [_argument(value, random) for value in item]
        case _:
            return item


def _tensor(dtype: Any, shape: list[int], low: float, high: float, random: Any) -> Any:
    """Numbers that look like the recorded ones: within their range where they never were negative, else normal."""
    if dtype == torch.bool:
        return torch.rand(shape, generator=random) < (0.5 if low != high else float(low))
    if not dtype.is_floating_point and not dtype.is_complex:
        # Wider ranges were read from memory that nobody had written yet.
        return torch.randint(max(int(low), -MOST), min(int(high), MOST) + 1, shape, generator=random, dtype=dtype)
    if dtype.is_complex or low == high or not math.isfinite(high - low):
        return torch.randn(shape, generator=random).to(dtype)
    most = torch.finfo(dtype).max
    low, high = max(low, -most), min(high, most)
    if low >= 0 or high <= 0:
        return (torch.rand(shape, generator=random) * (high - low) + low).to(dtype)
    return torch.randn(shape, generator=random).clamp(low, high).to(dtype)
