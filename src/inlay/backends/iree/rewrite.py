"""Graphs in the operators that IREE's torch frontend has rules for. A torch door, called by `lower`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import get_decompositions
from torch.export import ExportedProgram

aten = torch.ops.aten
BITWISE = {
    aten.__and__.Tensor: aten.bitwise_and.Tensor,
    aten.__or__.Tensor: aten.bitwise_or.Tensor,
    aten.__xor__.Tensor: aten.bitwise_xor.Tensor,
}
COMPARISONS = tuple(getattr(aten, name).Scalar for name in ("eq", "ne", "lt", "le", "gt", "ge"))
FROM_TORCH = (aten._native_batch_norm_legit.no_stats, aten.upsample_bilinear2d.vec)
"""What torch's default table leaves whole though torch has a decomposition, and IREE no rule."""


def without_assertions(exported: ExportedProgram) -> ExportedProgram:
    """The same program, changed in place: what is asserted of sizes at run time is checked by the executable."""
    for node in list(exported.graph.nodes):
        if node.op == "call_function" and ("_assert" in str(node.target) or "sym_constrain" in str(node.target)):
            exported.graph.erase_node(node)
    exported.graph.eliminate_dead_code()
    return exported


def decompositions() -> dict[Any, Callable[..., Any]]:
    """torch's own table, and what it leaves whole though IREE has no rule for it, or a wrong one.

    A decomposition that gives NotImplemented leaves the operator as it is.
    """
    table = {**torch.export.default_decompositions(), **get_decompositions(FROM_TORCH)}
    del table[aten.squeeze.dim]  # torch makes it the one for several axes, which IREE lacks
    return {
        **table,
        aten._native_batch_norm_legit_no_training.default: _batch_norm,
        aten.arange.start_step: _arange,
        aten.argmax.default: _place,
        aten.argmin.default: _place,
        aten.cumprod.default: _cumprod,
        aten.constant_pad_nd.default: _pad,
        aten.div.Tensor_mode: _divide,
        aten.empty_permuted.default: _zeros,
        aten.fmod.Scalar: _fmod,
        aten.fmod.Tensor: _fmod,
        aten.histc.default: _histc,
        aten.max_pool2d_with_indices.default: _max_pool,
        aten.pow.Scalar: _power,
        aten.pow.Tensor_Scalar: _power_by_number,
        aten.pow.Tensor_Tensor: _power,
        aten.roll.default: _roll,
        aten.squeeze.dims: _squeeze,
        aten.topk.default: _topk,
    }


def rewrite(exported: ExportedProgram) -> ExportedProgram:
    """The decomposed program, changed in place."""
    for node in exported.graph.nodes:
        node.target = BITWISE.get(node.target, node.target)
        if node.target in COMPARISONS and node.args[0].meta["val"].is_floating_point():
            # IREE 3.13.0 takes the bits of a whole number for a float's where the tensor is constant.
            node.args = (node.args[0], float(node.args[1]) if isinstance(node.args[1], int) else node.args[1])
        if node.op == "call_function" and node.target is not aten.arange.start_step:  # the length of which it decides
            node.args = tuple(_nearest(item) for item in node.args)
            node.kwargs = {name: _nearest(item) for name, item in node.kwargs.items()}
    return without_assertions(exported)


def _nearest(value: Any) -> Any:
    """A number in float64 as the nearest of float32: IREE 3.13.0 cuts off what is beyond float32."""
    return torch.tensor(value, dtype=torch.float32).item() if isinstance(value, float) else value


def _topk(
    x: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """By k maxima, one after another: IREE 3.13.0 gave wrong indices in a router of experts, though not by itself.

    `support` refuses what this is not for: many, or whole numbers.
    """
    shape = [1] * x.dim()
    shape[dim] = -1
    places = torch.arange(x.shape[dim], device=x.device).view(shape)
    rest, values, indices = x if largest else -x, [], []
    for _ in range(k):
        value, index = torch.max(rest, dim, keepdim=True)
        values.append(value)
        indices.append(index)
        rest = torch.where(places == index, float("-inf"), rest)
    found = torch.cat(values, dim)
    return (found if largest else -found), torch.cat(indices, dim)


def _batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    momentum: float,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """By its definition; the two statistics are empty outside of training."""
    shape = [1, -1, *[1] * (x.dim() - 2)]
    result = (x - mean.view(shape)) * torch.rsqrt(variance + epsilon).view(shape)
    if weight is not None:
        result = result * weight.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    return result, x.new_empty((0,)), x.new_empty((0,))


def _squeeze(x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """One axis after another, the last first."""
    for axis in sorted((axis % max(x.dim(), 1) for axis in axes), reverse=True):
        if x.dim() and isinstance(x.shape[axis], int) and x.shape[axis] == 1:
            x = x.squeeze(axis)
    return x


def _place(x: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Of the largest or smallest of a single number without axes, which IREE does not take."""
    return NotImplemented if x.dim() else torch.zeros_like(x, dtype=torch.int64)


def _cumprod(x: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """The type is changed first."""
    return NotImplemented if dtype is None else x.to(dtype).cumprod(dim)


def _roll(x: torch.Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> torch.Tensor:
    """By index, without a remainder of sizes, which IREE does not have of those known at run time only."""
    if not dims:
        return _roll(x.flatten(), shifts, [0]).view(x.shape)
    for shift, axis in zip(shifts, dims, strict=True):
        size = x.shape[axis]
        x = x.index_select(axis, torch.remainder(torch.arange(size) - shift, size))
    return x


def _arange(start: float, end: float, step: float = 1, *, dtype: torch.dtype | None = None, **memory: Any) -> Any:
    """Of bytes, by way of whole numbers that IREE counts in."""
    return torch.arange(start, end, step, dtype=torch.int64).to(dtype) if dtype in (torch.int8, torch.uint8) else NotImplemented


def _zeros(size: Sequence[int], order: Sequence[int], *, dtype: torch.dtype | None = None, **memory: Any) -> torch.Tensor:
    """In place of values left undefined."""
    return torch.zeros(size, dtype=dtype)


def _pad(x: torch.Tensor, pad: Sequence[int], value: float = 0) -> Any:
    """What a negative number cuts off is cut off first."""
    cut = [-size if isinstance(size, int) and size < 0 else 0 for size in pad]
    if not any(cut):
        return NotImplemented
    for place, (before, after) in enumerate(zip(cut[::2], cut[1::2], strict=True)):
        axis = x.dim() - 1 - place
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return torch.constant_pad_nd(x, [size + less for size, less in zip(pad, cut, strict=True)], value)


def _divide(x: torch.Tensor, divisor: torch.Tensor | float, *, rounding_mode: str | None) -> Any:
    """Whole numbers by a quotient without its rest, one less where they have a rest and unlike signs: IREE divides floats."""
    dtype = torch.result_type(x, divisor)
    if dtype.is_floating_point or rounding_mode != "floor":
        return NotImplemented
    x, divisor = x.to(dtype), _tensor(divisor, x, dtype)
    quotient = torch.div(x, divisor, rounding_mode="trunc")
    return quotient - ((quotient * divisor != x) & ((x < 0) != (divisor < 0))).to(dtype)


def _fmod(x: torch.Tensor, divisor: torch.Tensor | float) -> Any:
    """IREE has it for two tensors of floats; of whole numbers it is what the quotient leaves."""
    dtype = torch.result_type(x, divisor)
    if isinstance(divisor, torch.Tensor) and dtype.is_floating_point and x.dtype == divisor.dtype:
        return NotImplemented
    x, divisor = x.to(dtype), _tensor(divisor, x, dtype)
    return torch.fmod(x, divisor) if dtype.is_floating_point else x - torch.div(x, divisor, rounding_mode="trunc") * divisor


def _tensor(value: torch.Tensor | float, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A number, or a size, beside a tensor."""
    return value.to(dtype) if isinstance(value, torch.Tensor) else like.new_full((), value, dtype=dtype)


def _histc(x: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> torch.Tensor:
    """By comparing each number with each bin; where both limits are equal the numbers decide them."""
    x = x.flatten()
    low, high = (x.new_full((), limit) for limit in (min, max))
    if min == max:
        low, high = x.amin(), x.amax()
        low, high = torch.where(low == high, low - 1, low), torch.where(low == high, high + 1, high)
    bin_of = ((x - low) * bins / (high - low)).floor().clamp(max=bins - 1)
    inside = (x >= low) & (x <= high)
    return ((bin_of[:, None] == torch.arange(bins)) & inside[:, None]).to(x.dtype).sum(0)


def _max_pool(x: torch.Tensor, *window: Any) -> Any:
    """Of one picture, as of a batch of one."""
    if x.dim() == 4:
        return NotImplemented
    values, indices = aten.max_pool2d_with_indices(x[None], *window)
    return values[0], indices[0]


def _power_by_number(x: torch.Tensor, exponent: float) -> Any:
    """Whole exponents are products: IREE has no power of whole numbers, and gives -inf for 0 to a negative exponent."""
    if isinstance(exponent, float) and not exponent.is_integer():
        return NotImplemented if x.is_floating_point() else torch.pow(x.to(torch.get_default_dtype()), exponent)
    if exponent < 0:
        return torch.pow(x, -exponent).reciprocal()
    if x.is_floating_point():
        return NotImplemented
    result, rest = torch.ones_like(x), int(exponent)
    while rest:
        result, x, rest = (result * x if rest % 2 else result), x * x, rest // 2
    return result.to(torch.get_default_dtype()) if isinstance(exponent, float) else result


def _power(x: torch.Tensor | float, exponent: torch.Tensor) -> torch.Tensor:
    """By the logarithm of the absolute value, as IREE does it, which forgets what a negative number or 0 gives.

    `support` refuses what this is not for: whole numbers.
    """
    dtype = torch.result_type(x, exponent)
    exponent = exponent.to(dtype)
    x = _tensor(x, exponent, dtype)
    size = torch.exp(exponent * x.abs().log())
    size = torch.where((exponent == 0) | (x.abs() == 1), 1.0, size)
    whole, even = exponent == exponent.floor(), exponent / 2 == (exponent / 2).floor()
    signed = torch.where(whole & ~even, -size, torch.where(whole | x.isinf(), size, float("nan")))
    return torch.where(x < 0, signed, size)
