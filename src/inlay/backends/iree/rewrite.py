"""Graphs in the operators that IREE's torch frontend has rules for. A torch door, called by `lower`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram

aten = torch.ops.aten
BITWISE = {
    aten.__and__.Tensor: aten.bitwise_and.Tensor,
    aten.__or__.Tensor: aten.bitwise_or.Tensor,
    aten.__xor__.Tensor: aten.bitwise_xor.Tensor,
}


def without_assertions(exported: ExportedProgram) -> ExportedProgram:
    """The same program, changed in place: what is asserted of sizes at run time is checked by the executable."""
    for node in list(exported.graph.nodes):
        if node.op == "call_function" and ("_assert" in str(node.target) or "sym_constrain" in str(node.target)):
            exported.graph.erase_node(node)
    exported.graph.eliminate_dead_code()
    return exported


def decompositions() -> dict[Any, Callable[..., Any]]:
    """torch's own table, and what it leaves whole though IREE has no rule for it."""
    table = dict(torch.export.default_decompositions())
    table[aten._native_batch_norm_legit_no_training.default] = _batch_norm
    table[aten.topk.default] = _topk
    return table


def rewrite(exported: ExportedProgram) -> ExportedProgram:
    """The decomposed program, changed in place."""
    for node in list(exported.graph.nodes):
        if node.target is aten.squeeze.dims:
            _squeeze_one_by_one(exported.graph, node)
        elif node.target in BITWISE:
            node.target = BITWISE[node.target]
    return without_assertions(exported)


def _squeeze_one_by_one(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    source, axes = node.args
    assert isinstance(source, torch.fx.Node)
    value, result = source.meta["val"], source
    with graph.inserting_before(node):
        for axis in sorted((int(axis) % max(value.dim(), 1) for axis in axes), reverse=True):
            if isinstance(value.shape[axis], int) and value.shape[axis] == 1:
                made = graph.call_function(aten.squeeze.dim, (result, axis))
                made.meta = {**node.meta, "val": aten.squeeze.dim(result.meta["val"], axis)}
                result = made
    node.replace_all_uses_with(result)
    graph.erase_node(node)


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
