"""Operators that multiply and add: matrix products, convolutions, attention, recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from inlay.backends.xla.operators.table import Call, Value, cast, jnp, lax, nn, repeated, takes


@takes("aten.mm.default", "aten.bmm.default", "aten.matmul.default", "aten.mv.default", "aten.dot.default")
def matmul(call: Call, a: Value, b: Value) -> Value:
    return jnp.matmul(a, b)


@takes("aten.addmm.default", "aten.addmv.default", "aten.baddbmm.default")
def add_matmul(call: Call, bias: Value, a: Value, b: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    result = jnp.matmul(a, b)
    result = result if alpha == 1 else result * cast(alpha, call.dtype)
    if beta == 0:
        return result
    return result + (bias if beta == 1 else bias * cast(beta, call.dtype))


@takes("aten.linear.default")
def linear(call: Call, x: Value, weight: Value, bias: Value = None) -> Value:
    result = jnp.matmul(x, weight.T)
    return result if bias is None else result + bias


@takes("aten.bilinear.default")
def bilinear(call: Call, a: Value, b: Value, weight: Value, bias: Value = None) -> Value:
    result = jnp.einsum("...i,oij,...j->...o", a, weight, b)
    return result if bias is None else result + bias


@takes("aten.einsum.default")
def einsum(call: Call, equation: str, items: Sequence[Value], *, path: Any = None) -> Value:
    return jnp.einsum(equation, *items)


@takes("aten.outer.default", "aten.ger.default")
def outer(call: Call, a: Value, b: Value) -> Value:
    return jnp.outer(a, b)


@takes("transformers.grouped_mm_fallback.default", "aten._grouped_mm.default")
def grouped_matmul(call: Call, x: Value, weight: Value, offs: Value = None, *_: Any, **__: Any) -> Value:
    """Rows in runs, one matrix [in, out] for each run; `offs` are the ends of the runs."""
    sizes = jnp.diff(offs, prepend=jnp.zeros(1, offs.dtype)).astype("int32")
    return lax.ragged_dot(x, weight, sizes)


@takes("aten.scaled_dot_product_attention.default")
def attention(
    call: Call, query: Value, key: Value, value: Value, attn_mask: Value = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    """A row whose mask admits nothing gives zeros, as torch does."""
    if enable_gqa:
        key, value = (jnp.repeat(item, query.shape[-3] // item.shape[-3], axis=-3) for item in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = jnp.matmul(query * cast(factor, call.dtype), jnp.swapaxes(key, -1, -2))
    if is_causal:
        attn_mask = jnp.tril(jnp.ones(scores.shape[-2:], "bool"))
    if attn_mask is None:
        return jnp.matmul(nn.softmax(scores, -1), value)
    hidden = cast(-math.inf, call.dtype)
    scores = jnp.where(attn_mask, scores, hidden) if attn_mask.dtype == bool else scores + cast(attn_mask, call.dtype)
    dead = jnp.max(scores, -1, keepdims=True) == hidden
    weights = jnp.where(dead, cast(0, call.dtype), nn.softmax(jnp.where(dead, cast(0, call.dtype), scores), -1))
    return jnp.matmul(weights, value)


def _numbers(rank: int) -> tuple[str, str, str]:
    """Where batch, channels and space stand, for torch's order."""
    space = "DHW"[3 - rank :]
    return f"NC{space}", f"OI{space}", f"NC{space}"


def convolve(
    x: Value, weight: Value, bias: Value, stride: Any, padding: Any, dilation: Any, groups: int
) -> Value:  # fmt: skip
    """A convolution of any rank, of one image where the batch axis is absent."""
    rank = weight.ndim - 2
    single = x.ndim == rank + 1
    held = x[None] if single else x
    steps, spread = repeated(stride, rank), repeated(dilation, rank)
    if padding == "same":
        whole = [spread[axis] * (weight.shape[2 + axis] - 1) for axis in range(rank)]
        pads = [(size // 2, size - size // 2) for size in whole]
    else:
        pads = [(size, size) for size in repeated(0 if padding == "valid" else padding, rank)]
    result = lax.conv_general_dilated(
        held, weight, steps, pads, rhs_dilation=spread, dimension_numbers=_numbers(rank), feature_group_count=groups
    )
    if bias is not None:
        result = result + bias.reshape(-1, *(1,) * rank)
    return result[0] if single else result


def convolve_transposed(
    x: Value, weight: Value, bias: Value, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any
) -> Value:
    """A transposed convolution as one over an input spread by the stride; weight [in, out / groups, ...], turned round."""
    rank = weight.ndim - 2
    single = x.ndim == rank + 1
    held = x[None] if single else x
    steps, cut, more, spread = (repeated(item, rank) for item in (stride, padding, output_padding, dilation))
    entering, leaving, *kernel = weight.shape
    turned = jnp.flip(weight, tuple(range(2, 2 + rank)))
    turned = turned.reshape(groups, entering // groups, leaving, *kernel).swapaxes(1, 2)
    turned = turned.reshape(groups * leaving, entering // groups, *kernel)
    reach = [spread[axis] * (kernel[axis] - 1) for axis in range(rank)]
    pads = [(reach[axis] - cut[axis], reach[axis] - cut[axis] + more[axis]) for axis in range(rank)]
    result = lax.conv_general_dilated(
        held, turned, (1,) * rank, pads, lhs_dilation=steps, rhs_dilation=spread, dimension_numbers=_numbers(rank),
        feature_group_count=groups,
    )  # fmt: skip
    if bias is not None:
        result = result + bias.reshape(-1, *(1,) * rank)
    return result[0] if single else result


@takes(*(f"aten.conv{rank}d.{overload}" for rank in (1, 2, 3) for overload in ("default", "padding")))
def convolution(
    call: Call, x: Value, weight: Value, bias: Value = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    return convolve(x, weight, bias, stride, padding, dilation, groups)


@takes("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def convolution_transposed(
    call: Call, x: Value, weight: Value, bias: Value = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Value:  # fmt: skip
    return convolve_transposed(x, weight, bias, stride, padding, output_padding, groups, dilation)


@takes("aten.convolution.default")
def any_convolution(
    call: Call, x: Value, weight: Value, bias: Value, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    if transposed:
        return convolve_transposed(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolve(x, weight, bias, stride, padding, dilation, groups)


def _lstm_step(gates: Value, hidden: Value, cell: Value) -> tuple[Value, Value]:
    enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
    cell = nn.sigmoid(forget) * cell + nn.sigmoid(enter) * jnp.tanh(new)
    return nn.sigmoid(leave) * jnp.tanh(cell), cell


def _gru_step(given: Value, own: Value, hidden: Value) -> Value:
    reset, update, new = jnp.split(given, 3, axis=-1)
    reset_own, update_own, new_own = jnp.split(own, 3, axis=-1)
    reset, update = nn.sigmoid(reset + reset_own), nn.sigmoid(update + update_own)
    new = jnp.tanh(new + reset * new_own)
    return (1 - update) * new + update * hidden


def _affine(x: Value, weight: Value, bias: Value) -> Value:
    result = jnp.matmul(x, weight.T)
    return result if bias is None else result + bias


def _direction(kind: str, x: Value, state: tuple[Value, ...], parts: Sequence[Value], *, backwards: bool) -> Any:
    """One direction of one layer over x [T, B, width]: the hidden states of all steps and the last state."""
    w_in, w_hidden = parts[:2]
    b_in, b_hidden = parts[2:4] if len(parts) >= 4 else (None, None)
    given = _affine(x, w_in, b_in)

    def step(held: tuple[Value, ...], now: Value) -> Any:
        own = _affine(held[0], w_hidden, b_hidden)
        held = _lstm_step(now + own, *held) if kind == "lstm" else (_gru_step(now, own, held[0]),)
        return held, held[0]

    last, every = lax.scan(step, state, given, reverse=backwards)
    return every, last


def _recurrent(
    kind: str, x: Value, first: Sequence[Value], parts: Sequence[Value], biased: bool, layers: int, both: bool,
    batch_first: bool,
) -> Any:  # fmt: skip
    """All layers; the last states of all of them, stacked."""
    single = x.ndim == 2
    held = x[:, None] if single else (jnp.swapaxes(x, 0, 1) if batch_first else x)
    begin = [item[:, None] if single else item for item in first]
    size, directions = 4 if biased else 2, 2 if both else 1
    ends: list[tuple[Value, ...]] = []
    for layer in range(layers):
        made = []
        for way in range(directions):
            index = layer * directions + way
            own = parts[index * size : (index + 1) * size]
            state = tuple(item[index] for item in begin)
            every, last = _direction(kind, held, state, own, backwards=way == 1)
            made.append(every)
            ends.append(last)
        held = jnp.concatenate(made, -1) if both else made[0]
    stacked = [jnp.stack(items) for items in zip(*ends, strict=True)]
    if single:
        return held[:, 0], *(item[:, 0] for item in stacked)
    return (jnp.swapaxes(held, 0, 1) if batch_first else held), *stacked


@takes("aten.lstm.input")
def lstm(
    call: Call, x: Value, first: Sequence[Value], parts: Sequence[Value], biased: bool, layers: int, dropout: float,
    train: bool, both: bool, batch_first: bool,
) -> Value:  # fmt: skip
    return _recurrent("lstm", x, first, parts, biased, layers, both, batch_first)


@takes("aten.gru.input")
def gru(
    call: Call, x: Value, first: Value, parts: Sequence[Value], biased: bool, layers: int, dropout: float, train: bool,
    both: bool, batch_first: bool,
) -> Value:  # fmt: skip
    return _recurrent("gru", x, [first], parts, biased, layers, both, batch_first)


@takes("aten.gru_cell.default")
def gru_cell(
    call: Call, x: Value, hidden: Value, w_in: Value, w_hidden: Value, b_in: Value = None, b_hidden: Value = None
) -> Value:  # fmt: skip
    return _gru_step(_affine(x, w_in, b_in), _affine(hidden, w_hidden, b_hidden), hidden)


@takes("aten.lstm_cell.default")
def lstm_cell(
    call: Call, x: Value, state: Sequence[Value], w_in: Value, w_hidden: Value, b_in: Value = None, b_hidden: Value = None
) -> Value:  # fmt: skip
    hidden, cell = state
    return _lstm_step(_affine(x, w_in, b_in) + _affine(hidden, w_hidden, b_hidden), hidden, cell)


@takes("aten.cosine_similarity.default")
def cosine_similarity(call: Call, a: Value, b: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    least = cast(eps, call.dtype)
    one, two = jnp.broadcast_arrays(cast(a, call.dtype), cast(b, call.dtype))
    sizes = [jnp.maximum(jnp.sqrt(jnp.sum(item * item, dim, keepdims=True)), least) for item in (one, two)]
    return jnp.sum((one / sizes[0]) * (two / sizes[1]), dim)
