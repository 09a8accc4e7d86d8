"""Operators that take each element by itself: arithmetic, comparisons, logic, activations, casts."""

from __future__ import annotations

import math
from typing import Any

from inlay.backends.xla.operators.table import TABLE, Call, Value, cast, jnp, lax, nn, special, takes


def _unary(name: str, function: Any) -> None:
    """One operand, computed in the dtype of the result."""

    def operator(call: Call, x: Value) -> Value:
        return function(cast(x, call.dtype))

    TABLE[f"aten.{name}.default"] = operator


for _name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt"):
    _unary(_name, lambda x, name=_name: getattr(jnp, name)(x))
for _name, _other in (("asin", "arcsin"), ("acos", "arccos"), ("atan", "arctan"), ("asinh", "arcsinh"), ("acosh", "arccosh")):
    _unary(_name, lambda x, name=_other: getattr(jnp, name)(x))
_unary("atanh", lambda x: jnp.arctanh(x))
_unary("rsqrt", lambda x: lax.rsqrt(x))
_unary("reciprocal", lambda x: 1 / x)
_unary("square", lambda x: x * x)
_unary("neg", lambda x: -x)
_unary("positive", lambda x: x)
_unary("sign", lambda x: x if x.dtype == bool else jnp.sign(x))
_unary("sgn", lambda x: x if x.dtype == bool else jnp.sign(x))
_unary("floor", lambda x: jnp.floor(x).astype(x.dtype))
_unary("ceil", lambda x: jnp.ceil(x).astype(x.dtype))
_unary("trunc", lambda x: jnp.trunc(x).astype(x.dtype))
_unary("fix", lambda x: jnp.trunc(x).astype(x.dtype))
_unary("frac", lambda x: x - jnp.trunc(x))
_unary("round", lambda x: jnp.round(x))
_unary("erf", lambda x: special.erf(x))
_unary("erfc", lambda x: special.erfc(x))
_unary("erfinv", lambda x: special.erfinv(x))
_unary("lgamma", lambda x: special.gammaln(x))
_unary("digamma", lambda x: special.digamma(x))
_unary("sigmoid", lambda x: nn.sigmoid(x))
_unary("log_sigmoid", lambda x: nn.log_sigmoid(x))
_unary("silu", lambda x: nn.silu(x))
_unary("mish", lambda x: x * jnp.tanh(nn.softplus(x)))
_unary("relu", lambda x: jnp.maximum(x, 0))
_unary("relu6", lambda x: jnp.clip(x, 0, 6))
_unary("hardswish", lambda x: x * jnp.clip(x + 3, 0, 6) / 6)
_unary("hardsigmoid", lambda x: jnp.clip(x + 3, 0, 6) / 6)
_unary("selu", lambda x: nn.selu(x))
_unary("bitwise_not", lambda x: ~x)
_unary("conj", lambda x: jnp.conj(x))
_unary("_conj", lambda x: jnp.conj(x))
_unary("resolve_conj", lambda x: x)


@takes("aten.abs.default", "aten.absolute.default")
def absolute(call: Call, x: Value) -> Value:
    return cast(jnp.abs(x), call.dtype)


@takes("aten.round.decimals")
def round_to(call: Call, x: Value, *, decimals: int) -> Value:
    return jnp.round(cast(x, call.dtype), decimals)


def _binary(names: tuple[str, ...], function: Any) -> None:
    """Two operands, both in the dtype of the result."""

    def operator(call: Call, a: Value, b: Value) -> Value:
        return function(cast(a, call.dtype), cast(b, call.dtype))

    takes(*names)(operator)


def _of(name: str, *overloads: str) -> tuple[str, ...]:
    return tuple(f"aten.{name}.{overload}" for overload in overloads or ("default",))


TENSOR = ("Tensor", "Scalar")
ANY_ORDER = ("Tensor", "Scalar", "Scalar_Tensor")
SHIFT = ("Tensor", "Tensor_Scalar", "Scalar_Tensor")


_binary(_of("mul", *TENSOR), lambda a, b: a & b if a.dtype == bool else a * b)
_binary(_of("multiply", *TENSOR), lambda a, b: a & b if a.dtype == bool else a * b)
_binary(_of("true_divide", *TENSOR), lambda a, b: a / b)
_binary(("aten.div.Tensor", "aten.div.Scalar"), lambda a, b: a / b)
_binary(_of("floor_divide", "default", "Scalar"), lambda a, b: jnp.floor_divide(a, b))
_binary(_of("remainder", *ANY_ORDER), lambda a, b: jnp.remainder(a, b))
_binary(_of("fmod", *TENSOR), lambda a, b: jnp.fmod(a, b))
_binary(_of("atan2"), lambda a, b: jnp.arctan2(a, b))
_binary(_of("maximum"), lambda a, b: jnp.maximum(a, b))
_binary(_of("minimum"), lambda a, b: jnp.minimum(a, b))
_binary(("aten.max.other",), lambda a, b: jnp.maximum(a, b))
_binary(("aten.min.other",), lambda a, b: jnp.minimum(a, b))
_binary(_of("fmax"), lambda a, b: jnp.fmax(a, b))
_binary(_of("fmin"), lambda a, b: jnp.fmin(a, b))
_binary(_of("logaddexp"), lambda a, b: jnp.logaddexp(a, b))
_binary((*_of("bitwise_and", *ANY_ORDER), *_of("__and__", *TENSOR)), lambda a, b: a & b)
_binary((*_of("bitwise_or", *ANY_ORDER), *_of("__or__", *TENSOR)), lambda a, b: a | b)
_binary((*_of("bitwise_xor", *ANY_ORDER), *_of("__xor__", *TENSOR)), lambda a, b: a ^ b)
_binary((*_of("bitwise_left_shift", *SHIFT), *_of("__lshift__", *TENSOR)), lambda a, b: a << b)
_binary((*_of("bitwise_right_shift", *SHIFT), *_of("__rshift__", *TENSOR)), lambda a, b: a >> b)


@takes("aten.add.Tensor", "aten.add.Scalar")
def add(call: Call, a: Value, b: Value, alpha: Any = 1) -> Value:
    one, two = cast(a, call.dtype), cast(b, call.dtype)
    if call.dtype == "bool":
        return one | two
    return one + (two if alpha == 1 else two * cast(alpha, call.dtype))


@takes("aten.sub.Tensor", "aten.sub.Scalar", "aten.subtract.Tensor")
def subtract(call: Call, a: Value, b: Value, alpha: Any = 1) -> Value:
    two = cast(b, call.dtype)
    return cast(a, call.dtype) - (two if alpha == 1 else two * cast(alpha, call.dtype))


@takes("aten.rsub.Scalar", "aten.rsub.Tensor")
def subtract_from(call: Call, a: Value, b: Value, alpha: Any = 1) -> Value:
    return subtract(call, b, a, alpha)


@takes("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def divide(call: Call, a: Value, b: Value, *, rounding_mode: str | None = None) -> Value:
    one, two = cast(a, call.dtype), cast(b, call.dtype)
    if rounding_mode == "floor":
        return jnp.floor_divide(one, two)
    if rounding_mode == "trunc":
        return lax.div(*jnp.broadcast_arrays(one, two)) if call.dtype.startswith(("int", "uint")) else jnp.trunc(one / two)
    return one / two


@takes("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def power(call: Call, a: Value, b: Value) -> Value:
    if isinstance(b, (int, float)) and float(b).is_integer() and 0 <= b <= 8:
        return lax.integer_pow(cast(a, call.dtype), int(b))
    if isinstance(b, float) and b == 0.5:
        return jnp.sqrt(cast(a, call.dtype))
    return jnp.power(cast(a, call.dtype), cast(b, call.dtype))


def _compare(name: str, function: Any) -> None:
    """Two operands in their common dtype, a bool for each."""

    def operator(call: Call, a: Value, b: Value) -> Value:
        return function(cast(a, call.common), cast(b, call.common))

    takes(f"aten.{name}.Tensor", f"aten.{name}.Scalar")(operator)


_compare("eq", lambda a, b: a == b)
_compare("ne", lambda a, b: a != b)
_compare("lt", lambda a, b: a < b)
_compare("le", lambda a, b: a <= b)
_compare("gt", lambda a, b: a > b)
_compare("ge", lambda a, b: a >= b)
_compare("not_equal", lambda a, b: a != b)
_compare("less", lambda a, b: a < b)
_compare("less_equal", lambda a, b: a <= b)
_compare("greater", lambda a, b: a > b)
_compare("greater_equal", lambda a, b: a >= b)


@takes("aten.logical_and.default")
def both(call: Call, a: Value, b: Value) -> Value:
    return cast(a, "bool") & cast(b, "bool")


@takes("aten.logical_or.default")
def either(call: Call, a: Value, b: Value) -> Value:
    return cast(a, "bool") | cast(b, "bool")


@takes("aten.logical_xor.default")
def one_of_two(call: Call, a: Value, b: Value) -> Value:
    return cast(a, "bool") ^ cast(b, "bool")


@takes("aten.logical_not.default")
def negated(call: Call, a: Value) -> Value:
    return ~cast(a, "bool")


@takes("aten.isnan.default")
def is_nan(call: Call, x: Value) -> Value:
    return jnp.isnan(x)


@takes("aten.isinf.default")
def is_infinite(call: Call, x: Value) -> Value:
    return jnp.isinf(x)


@takes("aten.isfinite.default")
def is_finite(call: Call, x: Value) -> Value:
    return jnp.isfinite(x)


@takes("aten.isneginf.default")
def is_negative_infinity(call: Call, x: Value) -> Value:
    return jnp.isneginf(x)


@takes("aten.nan_to_num.default")
def without_nan(call: Call, x: Value, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Value:
    return jnp.nan_to_num(x, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)


@takes("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default", "aten.clip.Tensor")
def clamp(call: Call, x: Value, low: Value = None, high: Value = None) -> Value:
    result = cast(x, call.dtype)
    if low is not None:
        result = jnp.maximum(result, cast(low, call.dtype))
    return result if high is None else jnp.minimum(result, cast(high, call.dtype))


@takes("aten.clamp_min.default", "aten.clamp_min.Tensor")
def at_least(call: Call, x: Value, low: Value) -> Value:
    return clamp(call, x, low)


@takes("aten.clamp_max.default", "aten.clamp_max.Tensor")
def at_most(call: Call, x: Value, high: Value) -> Value:
    return clamp(call, x, None, high)


@takes("aten.hardtanh.default")
def hard_tanh(call: Call, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    return clamp(call, x, low, high)


@takes("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(call: Call, condition: Value, a: Value, b: Value) -> Value:
    return jnp.where(cast(condition, "bool"), cast(a, call.dtype), cast(b, call.dtype))


@takes("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(call: Call, x: Value, mask: Value, value: Value) -> Value:
    return jnp.where(mask, cast(value, call.dtype), cast(x, call.dtype))


@takes("aten.gelu.default")
def gelu(call: Call, x: Value, *, approximate: str = "none") -> Value:
    return nn.gelu(x, approximate=approximate == "tanh")


@takes("aten.leaky_relu.default")
def leaky_relu(call: Call, x: Value, slope: float = 0.01) -> Value:
    return jnp.where(x > 0, x, x * cast(slope, call.dtype))


@takes("aten.prelu.default", "aten._prelu_kernel.default")
def learned_leaky_relu(call: Call, x: Value, weight: Value) -> Value:
    if weight.ndim == 1 and x.ndim > 1:
        weight = weight.reshape(-1, *(1,) * (x.ndim - 2))
    return jnp.where(x > 0, x, x * weight)


@takes("aten.elu.default")
def elu(call: Call, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    below = jnp.expm1(jnp.minimum(x, 0) * cast(input_scale, call.dtype)) * cast(alpha, call.dtype)
    return jnp.where(x > 0, x, below) * cast(scale, call.dtype)


@takes("aten.celu.default")
def celu(call: Call, x: Value, alpha: float = 1.0) -> Value:
    return jnp.maximum(x, 0) + jnp.minimum(alpha * jnp.expm1(jnp.minimum(x, 0) / alpha), 0)


@takes("aten.softplus.default")
def softplus(call: Call, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    scaled = x * cast(beta, call.dtype)
    return jnp.where(scaled > threshold, x, nn.softplus(scaled) / cast(beta, call.dtype))


@takes("aten.threshold.default")
def threshold(call: Call, x: Value, limit: Any, value: Any) -> Value:
    return jnp.where(x > cast(limit, call.dtype), x, cast(value, call.dtype))


@takes("aten.glu.default")
def gated(call: Call, x: Value, dim: int = -1) -> Value:
    kept, gate = jnp.split(x, 2, axis=dim)
    return kept * nn.sigmoid(gate)


@takes("aten.logit.default")
def logit(call: Call, x: Value, eps: float | None = None) -> Value:
    held = cast(x, call.dtype)
    if eps is not None:
        held = jnp.clip(held, eps, 1 - eps)
    return jnp.log(held / (1 - held))


@takes("aten.lerp.Scalar", "aten.lerp.Tensor")
def between(call: Call, start: Value, end: Value, weight: Value) -> Value:
    return start + cast(weight, call.dtype) * (end - start)


@takes("aten.addcmul.default")
def add_product(call: Call, x: Value, a: Value, b: Value, *, value: Any = 1) -> Value:
    return cast(x, call.dtype) + cast(value, call.dtype) * cast(a, call.dtype) * cast(b, call.dtype)


@takes("aten.addcdiv.default")
def add_quotient(call: Call, x: Value, a: Value, b: Value, *, value: Any = 1) -> Value:
    return cast(x, call.dtype) + cast(value, call.dtype) * cast(a, call.dtype) / cast(b, call.dtype)


@takes(
    "aten._to_copy.default", "aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other", "aten.type_as.default",
    "aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.detach.default", "aten.detach_.default",
    "aten.lift_fresh_copy.default", "aten.lift_fresh.default", "aten.cpu.default",
    "prims.convert_element_type.default", "aten.dropout.default", "aten.feature_dropout.default",
)  # fmt: skip
def converted(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    """The same values in the dtype of the result; dropout passes its input on in evaluation mode."""
    return cast(x, call.dtype)


@takes("aten.real.default")
def real_part(call: Call, x: Value) -> Value:
    return jnp.real(x)


@takes("aten.imag.default")
def imaginary_part(call: Call, x: Value) -> Value:
    return jnp.imag(x)


@takes("aten.complex.default")
def complex_of(call: Call, real: Value, imaginary: Value) -> Value:
    return lax.complex(*jnp.broadcast_arrays(real, imaginary))


@takes("aten.polar.default")
def polar(call: Call, size: Value, angle: Value) -> Value:
    return lax.complex(*jnp.broadcast_arrays(size * jnp.cos(angle), size * jnp.sin(angle)))


@takes("aten.view_as_real.default")
def as_real(call: Call, x: Value) -> Value:
    return jnp.stack([jnp.real(x), jnp.imag(x)], -1)


@takes("aten.view_as_complex.default")
def as_complex(call: Call, x: Value) -> Value:
    return lax.complex(x[..., 0], x[..., 1])


@takes("aten.deg2rad.default")
def radians(call: Call, x: Value) -> Value:
    return cast(x, call.dtype) * cast(math.pi / 180, call.dtype)
