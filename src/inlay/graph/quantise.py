"""Weights of matrix products in 8 bit: a captured program rewritten to hold whole numbers and scales. A torch door.

Symmetric, a scale for each output: w = scale * q with q of -127 to 127. The rewritten program computes the product with
`q.to(float32) * scale`, which is exact arithmetic on the rounded weights; what a backend makes of that form (weights kept in
8 bit, activations rounded too) is its own matter and recorded in its manifest. Called by `runtime.lower`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument

from inlay.graph.capture import lifted_weights

WHOLE, SCALE = "_int8", "_scale"
"""What the names of a weight's two parts end with."""
LARGEST = 127
Value = TypeVar("Value")
aten = torch.ops.aten
PRODUCTS = {aten.linear.default: (1, 0), aten.mm.default: (1, 1), aten.addmm.default: (2, 1)}
"""By operator: which argument is the weight, and which axis of it is the output."""


def quantise_weights(exported: ExportedProgram) -> ExportedProgram:
    """The program with every float32 matrix that a product takes as its weight replaced by its two parts.

    Everything else (embeddings as they are looked up, norms, biases, weights of gathered experts) stays as it was; a matrix
    that is also looked up, such as a tied embedding, is there in both forms. New weights follow the program's own, named
    `<weight>_int8` and `<weight>_scale`. The given program stays as it was.
    """
    targets = {spec.arg.name: str(spec.target) for spec in exported.graph_signature.input_specs if _is_weight(spec)}
    products = list(_weights_of_products(exported, targets))
    wanted = {weight: axis for weight, _, axis in products}
    taken = {(weight, product) for weight, product, _ in products}
    graph = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    parts: dict[torch.fx.Node, tuple[torch.fx.Node, torch.fx.Node]] = {}
    whole: dict[torch.fx.Node, torch.fx.Node] = {}
    specs: list[InputSpec] = []
    state, tensors = dict(exported.state_dict), lifted_weights(exported)
    given = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    own = [node for node in exported.graph.nodes if node.op == "placeholder" and node.name in targets]
    for node in own:
        if node in wanted and all((node, user) in taken for user in node.users):
            state.pop(targets[node.name], None)
            continue
        copies[node] = graph.node_copy(node)
        copies[node].meta = dict(node.meta)
        specs.append(given[node.name])
    for node, axis in wanted.items():
        made = []
        weight = tensors[targets[node.name]]
        for ending, value in zip((WHOLE, SCALE), quantise(weight if axis == 0 else weight.T), strict=True):
            placeholder = graph.placeholder(node.name + ending)
            with node.meta["val"].fake_mode:
                placeholder.meta = {"val": torch.empty(value.shape, dtype=value.dtype)}
            state[targets[node.name] + ending] = value
            specs.append(InputSpec(InputKind.BUFFER, TensorArgument(placeholder.name), targets[node.name] + ending, True))
            made.append(placeholder)
        parts[node] = (made[0], made[1])
    for node in exported.graph.nodes:
        if node in copies or node in wanted:
            continue
        place = PRODUCTS.get(node.target, (None, 0))[0] if node.op == "call_function" else None
        weight = node.args[place] if place is not None and len(node.args) > place else None
        if weight in parts and weight not in whole:
            whole[weight] = _expanded(graph, parts[weight], node)
        if weight in parts:
            copies[node] = _product(graph, node, whole[weight], copies)
        else:
            copies[node] = graph.node_copy(node, lambda item: copies[item])
        copies[node].meta = dict(node.meta)
        if node.op == "placeholder":
            specs.append(given[node.name])
    return ExportedProgram(
        root=torch.nn.Module(),
        graph=graph,
        graph_signature=ExportGraphSignature(specs, list(exported.graph_signature.output_specs)),
        state_dict=state,
        range_constraints=dict(exported.range_constraints),
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=exported.constants,
        verifiers=exported.verifiers,
    )


def parts_of(weights: Mapping[str, Value]) -> dict[str, tuple[Value, Value]]:
    """Of things by the name of a weight: (whole numbers, scale) by the name of the weight that they are of."""
    return {
        name.removesuffix(WHOLE): (value, weights[name.removesuffix(WHOLE) + SCALE])
        for name, value in weights.items()
        if name.endswith(WHOLE) and name.removesuffix(WHOLE) + SCALE in weights
    }


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers int8 of a weight [outputs, inputs], and the scale float32 [outputs, 1] of each row."""
    scale = weight.abs().amax(1, keepdim=True) / LARGEST
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(weight / scale).clamp(-LARGEST, LARGEST).to(torch.int8).contiguous(), scale.contiguous()


def _weights_of_products(
    exported: ExportedProgram, targets: dict[str, str]
) -> Iterator[tuple[torch.fx.Node, torch.fx.Node, int]]:
    """(weight, product, output axis); a matrix that products take along both axes is left as it is."""
    found: dict[torch.fx.Node, set[int]] = {}
    uses: list[tuple[torch.fx.Node, torch.fx.Node, int]] = []
    for node in exported.graph.nodes:
        if node.op != "call_function" or node.target not in PRODUCTS:
            continue
        place, axis = PRODUCTS[node.target]
        if node.kwargs or (axis == 1 and len(node.args) != place + 1):
            continue  # with factors
        weight = node.args[place]
        if not isinstance(weight, torch.fx.Node) or weight.op != "placeholder" or weight.name not in targets:
            continue
        value: Any = weight.meta["val"]
        if value.dtype == torch.float32 and value.dim() == 2:
            found.setdefault(weight, set()).add(axis)
            uses.append((weight, node, axis))
    for weight, node, axis in uses:
        if len(found[weight]) == 1:
            yield weight, node, axis


def _product(
    graph: torch.fx.Graph, node: torch.fx.Node, weight: torch.fx.Node, copies: dict[torch.fx.Node, torch.fx.Node]
) -> torch.fx.Node:
    """The product as `linear` with a weight [outputs, inputs], whichever way it was written."""
    place, axis = PRODUCTS[node.target]
    bias = node.args[0] if place == 2 else (node.args[2] if axis == 0 and len(node.args) > 2 else None)
    arguments = (copies[node.args[place - 1]], weight) + (() if bias is None else (copies[bias],))
    return graph.create_node("call_function", aten.linear.default, arguments, name=node.name)


def _expanded(graph: torch.fx.Graph, parts: tuple[torch.fx.Node, torch.fx.Node], user: torch.fx.Node) -> torch.fx.Node:
    """The weight as numbers again, said to come from the module of its first user."""
    numbers, scale = parts
    notes = {name: user.meta[name] for name in ("nn_module_stack", "stack_trace") if name in user.meta}
    wide = graph.call_function(aten.to.dtype, (numbers, torch.float32))
    wide.meta = {**notes, "val": aten.to.dtype(numbers.meta["val"], torch.float32)}
    product = graph.call_function(aten.mul.Tensor, (wide, scale))
    product.meta = {**notes, "val": aten.mul.Tensor(wide.meta["val"], scale.meta["val"])}
    return product


def _is_weight(spec: InputSpec) -> bool:
    return bool(spec.kind != InputKind.USER_INPUT)
