"""How much arithmetic a node, a block or a program is: FLOPs at given sizes, from shapes alone (2 for a multiply-add).

Products and convolutions are counted exactly; every other operator counts one for each number it gives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from inlay.graph.digest import is_number, value_table
from inlay.graph.program import Block, Node, Program, Tensor
from inlay.graph.sizes import shape_value

FREE = (
    "aten.view", "aten.reshape", "aten.expand", "aten.permute", "aten.transpose", "aten.t.", "aten.unsqueeze", "aten.squeeze",
    "aten.slice", "aten.select", "aten.clone", "aten.alias", "aten.detach", "aten.split", "aten.unbind", "<built-in",
    "aten.as_strided",    "aten._to_copy", "aten.empty", "aten.lift_fresh", "aten.contiguous", "aten.flatten", "aten.unflatten",
)  # fmt: skip


def node_flops(node: Node, values: Mapping[str, Tensor], sizes: Mapping[str, int]) -> float:
    """FLOPs of one node; `values` is the table of `graph.digest.value_table`."""
    if is_number(node) or not node.outputs:
        return 0.0
    operator = node.operator
    out = node.outputs[0]
    tensors = [values[name] for name in _positional(node) if name in values]
    if operator.startswith(FREE):
        return 0.0
    if operator.startswith(("aten.linear", "aten.mm", "aten.bmm", "aten.matmul", "aten.mv", "aten.dot")) and len(tensors) > 1:
        return 2.0 * out.elements(sizes) * shape_value(tensors[0].shape, sizes)[-1]
    if operator.startswith(("aten.addmm", "aten.baddbmm")) and len(tensors) > 2:
        return 2.0 * out.elements(sizes) * shape_value(tensors[1].shape, sizes)[-1]
    if operator.startswith(("aten.conv", "aten.convolution", "aten._convolution")) and len(tensors) > 1:
        kernel = shape_value(tensors[1].shape, sizes)
        if _transposed(node):
            return 2.0 * tensors[0].elements(sizes) * math.prod(kernel[1:])
        return 2.0 * out.elements(sizes) * math.prod(kernel[1:])
    if operator.startswith("aten.scaled_dot_product") and len(tensors) > 2:
        query, key = shape_value(tensors[0].shape, sizes), shape_value(tensors[1].shape, sizes)
        value = shape_value(tensors[2].shape, sizes)
        return 2.0 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if operator.startswith(("aten.lstm", "aten.gru")):
        return 2.0 * sum(math.prod(shape_value(item.shape, sizes)) for item in tensors if len(item.shape) == 2)
    return float(sum(item.elements(sizes) for item in node.outputs))


def flops_of(program: Program, nodes: Iterable[str], sizes: Mapping[str, int]) -> float:
    """FLOPs of these nodes together."""
    wanted, values = set(nodes), value_table(program)
    return sum(node_flops(node, values, sizes) for node in program.nodes if node.name in wanted)


def block_flops(program: Program, block: Block, sizes: Mapping[str, int]) -> float:
    """FLOPs of a block, its replicated producers included."""
    return flops_of(program, (*block.nodes, *block.replicated), sizes)


def _positional(node: Node) -> list[str]:
    """The values among a node's arguments in their order, each as often as it is named."""
    found: list[str] = []

    def walk(item: object) -> None:
        if isinstance(item, dict) and "node" in item:
            found.append(item["node"])
        elif isinstance(item, list):
            for inner in item:
                walk(inner)

    walk(json.loads(node.arguments) if node.arguments else [{"node": name} for name in node.inputs])
    return found


def _transposed(node: Node) -> bool:
    if "transpose" in node.operator:
        return True
    arguments = json.loads(node.arguments)[0] if node.arguments else []
    return "convolution" in node.operator and len(arguments) > 6 and arguments[6] == ["bool", "True"]
