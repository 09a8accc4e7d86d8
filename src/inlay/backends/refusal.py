"""Which nodes a backend refuses and why: tables of operators and dtypes, and rules about arguments. Imports no SDK.

One object of Rules answers both `supports` and `lower`, so that neither promises what the other refuses.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inlay.errors import UnsupportedError
from inlay.graph import Node, Program, Tensor, symbols_of, value_table
from inlay.specs.artifact import Interface
from inlay.specs.capability import NodeSupport

UNKNOWN = re.compile(r"u\d+")  # what torch calls a size that only values decide
# Dropout is not among them: what is captured is in evaluation mode, where it passes its input on.
RANDOM = dict.fromkeys(
    (
        "aten.bernoulli", "aten.cauchy", "aten.exponential", "aten.geometric", "aten.log_normal",
        "aten.multinomial",
        "aten.normal", "aten.normal_functional", "aten.poisson", "aten.rand", "aten.rand_like",
        "aten.randint",
        "aten.randint_like", "aten.randn", "aten.randn_like", "aten.randperm", "aten.rrelu_with_noise_functional",
        "aten.uniform",
    ),
    "it draws random numbers, which no other framework draws alike",
)  # fmt: skip
Values = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Rules:
    """`operators` maps a name, with or without its overload, to the reason; `dtypes` likewise a dtype.

    `typed` maps an operator, likewise with or without its overload, to dtypes that it does not take in an input or a
    result, each with the reason. `special` gives the reason for one node with the table of all values, "" where it is
    taken. `sized` is true for a backend that takes operators whose size depends on values.
    """

    backend: str
    operators: Mapping[str, str]
    dtypes: Mapping[str, str]
    special: Callable[[Node, Values], str] = lambda node, values: ""
    sized: bool = False
    typed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def judge(self, program: Program) -> tuple[NodeSupport, ...]:
        """One answer for each node, in order."""
        values = value_table(program)
        reasons = [(node.name, self._reason(node, values)) for node in program.nodes]
        return tuple(NodeSupport(node=name, supported=not reason, reason=reason) for name, reason in reasons)

    def refuse(self, program: Program, interface: Interface) -> None:
        """Raise UnsupportedError for the first node, port or weight that is refused, with its source line and the reason."""
        for node, answer in zip(program.nodes, self.judge(program), strict=True):
            if not answer.supported:
                where = f" ({node.source})" if node.source else ""
                raise UnsupportedError(
                    f"{self.backend} does not take node {node.name!r} = {node.operator}{where}: {answer.reason}",
                    hint="place it on another backend",
                )
        ports = [(f"port {port.name!r}", port.dtype, port.shape) for port in (*interface.inputs, *interface.outputs)]
        weights = [(f"weight {name!r}", item.dtype, item.shape) for name, item in program.weights.items()]
        for what, dtype, shape in (*ports, *weights):
            if dtype in self.dtypes:
                raise UnsupportedError(f"{self.backend} does not take {what} of {dtype}: {self.dtypes[dtype]}")
            if any(UNKNOWN.fullmatch(symbol) for size in shape for symbol in symbols_of(size)):
                raise UnsupportedError(
                    f"{what} has shape {list(shape)}, a size of which depends on values, expected sizes that inputs decide",
                    hint="return a mask or a count in its place",
                )

    def _reason(self, node: Node, values: Values) -> str:
        names = (node.operator, node.operator.rpartition(".")[0])
        for name in names:
            if name in self.operators:
                return self.operators[name]
        tensors = [values[name] for name in node.inputs if name in values] + list(node.outputs)
        for tensor in tensors:
            for name in names:
                if tensor.dtype in self.typed.get(name, ()):
                    return f"in {tensor.dtype}: {self.typed[name][tensor.dtype]}"
        for tensor in tensors:
            if tensor.dtype in self.dtypes:
                return f"it has a value of {tensor.dtype}: {self.dtypes[tensor.dtype]}"
            if not self.sized and any(UNKNOWN.fullmatch(symbol) for size in tensor.shape for symbol in symbols_of(size)):
                return "a size of it depends on values"
        return self.special(node, values)


def arguments_of(node: Node) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments as plain values; None for nodes, and for what is no literal."""
    positional, named = json.loads(node.arguments) if node.arguments else ([], [])
    return [_plain(item) for item in positional], {key: _plain(item) for key, item in named}


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """One argument of a node, by position or by name."""
    positional, named = arguments_of(node)
    return positional[position] if position < len(positional) else named.get(name, default)


def _plain(item: Any) -> Any:
    match item:
        case [str() as kind, str() as text] if kind in ("int", "float", "bool", "str", "NoneType"):
            try:
                return ast.literal_eval(text)
            except ValueError:  # nan and inf
                return float(text)
        case list():
            return [_plain(part) for part in item]
        case _:
            return None
