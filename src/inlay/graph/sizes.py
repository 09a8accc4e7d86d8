"""Sizes of tensors: numbers, symbols, and expressions of symbols as torch prints them ("2*B", "((T - 1)//2) + 1").

Torch-free: deciders evaluate them, backends check bound buffers against them, executors solve them from real inputs.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from inlay.errors import InputError

Size = int | str
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "Max": max,
    "Min": min,
    "max": max,
    "min": min,
    "Abs": abs,
    "FloorDiv": lambda a, b: a // b,
    "CleanDiv": lambda a, b: a // b,
    "CeilDiv": lambda a, b: -(-a // b),
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "IntTrueDiv": lambda a, b: a / b,
    "FloatTrueDiv": lambda a, b: a / b,
    "TruncToInt": math.trunc,
    "FloorToInt": math.floor,
    "CeilToInt": math.ceil,
    "floor": math.floor,
    "ceiling": math.ceil,
    "Identity": lambda a: a,
    "ToFloat": float,
}


def size_value(size: Size, sizes: Mapping[str, int]) -> int:
    """A size as a number, given every symbol in it. Raises InputError that names the symbol without a value."""
    if isinstance(size, int):
        return size
    found = sizes.get(size)
    return found if found is not None else int(_value(_parse(size), size, sizes))


def shape_value(shape: Sequence[Size], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A whole shape as numbers."""
    return tuple(size_value(size, sizes) for size in shape)


def symbols_of(size: Size) -> frozenset[str]:
    """The symbols that a size depends on."""
    if isinstance(size, int):
        return frozenset()
    called = {node.func.id for node in ast.walk(_parse(size)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return frozenset(node.id for node in ast.walk(_parse(size)) if isinstance(node, ast.Name)) - called


def solve_sizes(declared: Mapping[str, Sequence[Size]], found: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The value of every symbol from real shapes by input name, each checked against what is declared.

    Raises InputError that names the input, its shape and what was expected. A symbol must stand alone in some shape.
    """
    sizes: dict[str, int] = {}
    for name, shape in declared.items():
        real = tuple(found[name])
        if len(real) != len(shape):
            raise InputError(f"input {name!r} has shape {list(real)}, expected {len(shape)} axes: {list(shape)}")
        for size, value in zip(shape, real, strict=True):
            if isinstance(size, str) and size.isidentifier() and sizes.setdefault(size, value) != value:
                raise InputError(f"input {name!r} has {size} = {value}, expected {sizes[size]} as in another input")
    for name, shape in declared.items():
        for size, value in zip(shape, found[name], strict=True):
            unknown = symbols_of(size) - set(sizes)
            if not unknown and size_value(size, sizes) != value:
                raise InputError(f"input {name!r} has shape {list(found[name])}, expected {list(shape_value(shape, sizes))}")
    return sizes


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise InputError(f"size {text!r} cannot be read, expected an expression of symbols") from error


def _value(node: ast.expr, text: str, sizes: Mapping[str, int]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            if name not in sizes:
                raise InputError(f"size {text!r} needs a value for {name!r}, given are: {', '.join(sorted(sizes)) or 'none'}")
            return sizes[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, text, sizes)
        case ast.BinOp(left=left, op=operator, right=right):
            return _binary(operator, _value(left, text, sizes), _value(right, text, sizes), text)
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(item, text, sizes) for item in arguments))
        case _:
            raise InputError(f"size {text!r} has {ast.unparse(node)!r}, expected numbers, symbols and arithmetic")


def _binary(operator: ast.operator, left: float, right: float, text: str) -> float:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.FloorDiv():
            return left // right
        case ast.Div():
            return left / right
        case ast.Mod():
            return left % right
        case ast.Pow():
            return float(left**right) if isinstance(left, float) else left**right
        case _:
            raise InputError(f"size {text!r} uses an operator that sizes do not have")
