"""Attention as torch defines it, for frameworks that define it less: a row whose mask admits nothing gives zeros. A torch door.

Frameworks take the softmax of a row of -inf, which is NaN, or of the least number, which is a mean over what was to be hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
MASK = 3


def guard_masked_rows(exported: ExportedProgram) -> ExportedProgram:
    """The program with every masked attention so guarded: all of a dead row is admitted, and its result set to zero.

    The given program stays as it was; where it masks nothing it is given back.
    """
    if not any(_mask(node) is not None for node in exported.graph.nodes):
        return exported
    graph = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in exported.graph.nodes:
        if _mask(node) is not None:
            copies[node] = _guarded(graph, node, copies)
        else:
            copies[node] = graph.node_copy(node, lambda given: copies[given])
            copies[node].meta = dict(node.meta)
    return ExportedProgram(
        root=torch.nn.Module(),
        graph=graph,
        graph_signature=exported.graph_signature,
        state_dict=exported.state_dict,
        range_constraints=dict(exported.range_constraints),
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=exported.constants,
        verifiers=exported.verifiers,
    )


def _mask(node: torch.fx.Node) -> torch.fx.Node | None:
    """The mask of an attention node that has one."""
    if node.op != "call_function" or node.target is not ATTENTION:
        return None
    found = node.args[MASK] if len(node.args) > MASK else node.kwargs.get("attn_mask")
    return found if isinstance(found, torch.fx.Node) else None


def _guarded(graph: torch.fx.Graph, node: torch.fx.Node, copies: dict[torch.fx.Node, torch.fx.Node]) -> torch.fx.Node:
    """Attention with a mask in which every row admits something; the last node has the name of the original."""
    source = _mask(node)
    assert source is not None
    mask = copies[source]

    def call(target: Any, *args: Any, name: str = "", **kwargs: Any) -> torch.fx.Node:
        made = graph.create_node("call_function", target, args, kwargs, name=name or f"{node.name}_guard")
        values = torch.fx.node.map_arg((args, kwargs), lambda item: item.meta["val"])
        made.meta = dict(node.meta) | {"val": target(*values[0], **values[1])}
        return made

    aten = torch.ops.aten
    if mask.meta["val"].dtype == torch.bool:
        dead = call(aten.logical_not.default, call(aten.any.dim, mask, -1, True))
        admitting = call(aten.logical_or.default, mask, dead)
    else:
        dead = call(aten.all.dim, call(aten.eq.Scalar, mask, float("-inf")), -1, True)
        admitting = call(aten.masked_fill.Scalar, mask, dead, 0.0)
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda item: admitting if item is source else copies[item])
    return call(aten.masked_fill.Scalar, call(ATTENTION, *args, **kwargs), dead, 0.0, name=node.name)
