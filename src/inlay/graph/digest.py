"""The structural digest of a program or of a piece of it: equal wiring, arguments, dtypes and shapes; names do not count."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from inlay.graph.program import Node, Program, Tensor
from inlay.graph.sizes import symbols_of

NUMBERS = ("SymInt", "SymFloat", "SymBool", "int", "float")
NODE = re.compile(r'\{"node":"([^"]+)"\}')


def structural_digest(
    program: Program, *, nodes: Sequence[str], inputs: Sequence[str], weights: Sequence[str], outputs: Sequence[str]
) -> str:
    """sha256 over the piece: ports in order, weights (dtype and shape) in order, nodes with all arguments, outputs.

    `weights` are node names (keys of `Program.weight_nodes`). Numbers of the graph that the piece reads from outside
    count by their expression. Ranges of the symbols it uses count.
    """
    known = {node.name: node for node in program.nodes}
    values, expressions = value_table(program), number_table(program)
    numbers = {name: index for index, name in enumerate([*inputs, *weights, *nodes])}
    symbols: set[str] = set()

    def tensor(item: Tensor) -> list[Any]:
        symbols.update(symbol for size in item.shape for symbol in symbols_of(size))
        return [item.dtype, list(item.shape)]

    def reference(found: re.Match[str]) -> str:
        name = found.group(1)
        return f'{{"node":{numbers[name]}}}' if name in numbers else json.dumps({"outside": expressions.get(name, name)})

    parts: list[Any] = [[tensor(values[name]) for name in inputs], [tensor(values[name]) for name in weights]]
    for name in nodes:
        node = known[name]
        parts.append([node.operator, NODE.sub(reference, node.arguments), [tensor(item) for item in node.outputs]])
    parts.append(["outputs", [numbers[name] for name in outputs]])
    parts.append(["ranges", sorted([symbol, *program.ranges[symbol]] for symbol in symbols if symbol in program.ranges)])
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def number_table(program: Program) -> dict[str, str]:
    """Every number of the graph as an expression of sizes, by node name; data-dependent ones by how they come about."""
    values, table = value_table(program), dict[str, str]()
    for node in program.nodes:
        if not is_number(node):
            continue
        if node.value:
            table[node.name] = node.value
        elif node.operator.startswith("aten.sym_size"):
            axis = json.loads(node.arguments)[0][1]
            table[node.name] = str(values[node.inputs[0]].shape[int(axis[1])])
        else:
            inner = NODE.sub(lambda found: json.dumps(table.get(found.group(1), found.group(1))), node.arguments)
            table[node.name] = f"{node.operator}{inner}"
    return table


def value_table(program: Program) -> dict[str, Tensor]:
    """The tensor behind every name of the graph: inputs, weights (by node name), and nodes with one output."""
    table = dict(program.inputs)
    table |= {name: program.weights[target] for name, target in program.weight_nodes.items()}
    table |= {node.name: node.outputs[0] for node in program.nodes if len(node.outputs) == 1}
    return table


def is_number(node: Node) -> bool:
    """Whether a node gives a number of the graph (a size), not a tensor."""
    return len(node.outputs) == 1 and node.outputs[0].dtype in NUMBERS
