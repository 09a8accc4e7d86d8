"""From torch's programs to ExecuTorch's, in fewer steps than by its defaults: what they would do twice is done once.

A torch door beside `lower`, which calls `convert`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from inlay.backends.executorch.packing import TAG

HOOKS = (
    "placeholder", "get_attr", "output", "call_operator", "call_sym", "call_cond", "call_map", "call_getitem", "call_delegate",
    "call_submodule", "call_function", "inputs",
)  # fmt: skip
"""What a pass may do at each node while it traces a graph again. One without any of them traces only for shapes."""


def convert(programs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Programs by the name of their method, with what XNNPACK takes handed to it: as an edge manager, and ready to write."""
    from executorch.backends.transforms.remove_clone_ops import RemoveCloneOpsTransform
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    with _traced_once(), _uncollected():
        edge = to_edge_transform_and_lower(
            dict(programs),
            # Copies that decomposing leaves go first: XNNPACK's own removal of them leaves a delegate with one output twice.
            transform_passes=[RemoveCloneOpsTransform(preserve_input_output_copies=True)],
            partitioner=[_partitioner()()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        made = edge.to_executorch(
            ExecutorchBackendConfig(
                external_constants=lambda node: TAG if "constant_" in node.name else None,
                memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
            )
        )
    return edge, made


def is_right(operator: str, node: Any) -> bool:
    """Whether XNNPACK computes what this node of an operator says, not something near it or nothing; a portable kernel does.

    It takes every gelu for that of the error function, resizes by the output's size also where a factor that is not their
    quotient is given, and has a prelu for images only.
    """
    match operator:
        case "gelu.default":
            return bool(node.kwargs.get("approximate", "none") == "none")
        case "upsample_bilinear2d.vec":
            corners, factors = node.args[2], node.args[3] if len(node.args) > 3 else None
            sizes = zip(node.args[0].meta["val"].shape[2:], node.meta["val"].shape[2:], factors or (), strict=bool(factors))
            return bool(corners) or all(size * factor == result for size, result, factor in sizes)
        case "prelu.default":
            return bool(node.args[0].meta["val"].dim() == 4)
    return True


def _narrowed(config: Any) -> Any:
    """One of XNNPACK's rules of what it takes, without nodes that it computes wrongly."""

    def check_constraints(self: Any, node: Any, ep: Any) -> bool:
        return is_right(config.target_name, node) and bool(config.check_constraints(self, node, ep))

    return type(config.__name__, (config,), {"check_constraints": check_constraints})


@cache
def _partitioner() -> Any:
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class Partitioner(XnnpackPartitioner):
        """XNNPACK's, which decomposes once more to part nodes of one operator; here only where some are kept, some not."""

        def __init__(self) -> None:
            super().__init__(configs=[_narrowed(config) for config in ALL_PARTITIONER_CONFIGS])

        def ops_to_not_decompose(self, ep: Any) -> tuple[list[Any], Any]:
            kept, takes = super().ops_to_not_decompose(ep)
            nodes = [node for node in ep.graph.nodes if node.op == "call_function" and node.target in kept]
            if takes is None or not all(takes(node) for node in nodes):
                return kept, takes
            return list({node.target for node in nodes}), None

    return Partitioner


@contextmanager
def _traced_once() -> Iterator[None]:
    """ExecuTorch's passes trace a graph again after each of them; here only where one changed it.

    Most find nothing to change, and tracing is most of what lowering takes.
    """
    from executorch.exir.pass_base import ExportPass, PassResult

    known: WeakKeyDictionary[Any, tuple[list[Any], list[Any]]] = WeakKeyDictionary()
    trace = ExportPass.call

    def call(self: Any, graph_module: Any) -> Any:
        only_shapes = all(getattr(type(self), name, None) is getattr(ExportPass, name, None) for name in HOOKS)
        before = known.get(graph_module.graph)
        if only_shapes and before is not None and before[0] == _state(graph_module.graph)[0]:
            return PassResult(graph_module, False)
        result = trace(self, graph_module)
        known[result.graph_module.graph] = _state(result.graph_module.graph)
        return result

    ExportPass.call = call
    try:
        yield
    finally:
        del ExportPass.call


def _state(graph: Any) -> tuple[list[Any], list[Any]]:
    """All that tracing depends on, to be compared, and the values whose identity is in it, which live as long."""
    values = [node.meta.get("val") for node in graph.nodes]
    return [
        (node, node.target, node.args, node.kwargs, id(value)) for node, value in zip(graph.nodes, values, strict=True)
    ], values


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles: the graphs are millions of objects, and it goes through all of them often."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
