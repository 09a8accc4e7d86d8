"""The torch door of graph: capture a stage with torch.export, free it of its weights, summarise it without torch.

Called by `runtime.lower` and, for saved graphs, by the backends that execute with torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import Dim, ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument

from inlay.errors import ArtifactError, UnsupportedError
from inlay.graph.program import Node, Program, Tensor

SYMBOLS = {
    "tokens": ("B", "T"),
    "past_lengths": ("B",),
    "logit_rows": ("R",),
    "past_k": ("B", None, "P"),
    "past_v": ("B", None, "P"),
}
LEAF_WARNING = r"`isinstance\(treespec, LeafSpec\)`"  # raised inside torch 2.13 when it copies an ExportedProgram


def capture_stage(stage: Any) -> ExportedProgram:
    """Capture an `inlay.models.torch.Stage` with dynamic batch, width, capacity and number of logit rows.

    The result keeps weights under the stage's own names and holds at every size from 1 up. Raises UnsupportedError
    where torch.export cannot trace the model or fixes one of the four sizes.
    """
    layers = range(len(stage.shape.layers))
    batch, width = {0: Dim.AUTO}, {0: Dim.AUTO, 1: Dim.AUTO}
    past = [{0: Dim.AUTO, 2: Dim.AUTO} for _ in layers]
    kind = getattr(stage, "model_type", type(stage).__name__)
    try:
        with torch.no_grad():
            exported = torch.export.export(
                stage,
                stage.example(),
                dynamic_shapes={
                    "tokens": width, "past_lengths": batch, "logit_rows": {0: Dim.AUTO}, "past_k": past, "past_v": past,
                },
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )  # fmt: skip
    except Exception as error:  # whatever torch.export raises: the model cannot be captured
        first = str(error).strip().splitlines()
        raise UnsupportedError(
            f"model type {kind!r} cannot be captured by torch.export: {type(error).__name__}: {first[0] if first else ''}"
        ) from error
    if exported.graph_signature.buffers_to_mutate or exported.graph_signature.user_inputs_to_mutate:
        changed = [
            *exported.graph_signature.buffers_to_mutate.values(),
            *exported.graph_signature.user_inputs_to_mutate.values(),
        ]
        raise UnsupportedError(f"model type {kind!r} changes {changed[0]!r} while it runs, expected a pure stage program")
    symbols = symbol_names(exported)
    missing = sorted({"B", "T", "P", "R"} - set(symbols.values()))
    if missing:
        raise UnsupportedError(
            f"model type {kind!r} was captured with a fixed size for {', '.join(missing)}, expected dynamic sizes"
        )
    return exported


def symbol_names(exported: ExportedProgram) -> dict[str, str]:
    """The names B, T, P, R of the symbolic sizes, read from where they appear in the inputs of a stage."""
    found: dict[str, str] = {}
    lifted = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind != InputKind.USER_INPUT}
    for node in exported.graph.nodes:
        if node.op != "placeholder" or node.name in lifted:
            continue
        base = (
            node.name.rstrip("0123456789").rstrip("_")
            if node.name.startswith("past_") and node.name not in SYMBOLS
            else node.name
        )
        for size, symbol in zip(node.meta["val"].shape, SYMBOLS.get(base, ()), strict=False):
            if symbol is not None and isinstance(size, torch.SymInt):
                found.setdefault(str(size), symbol)
    return found


def lifted_weights(exported: ExportedProgram) -> dict[str, torch.Tensor]:
    """Parameters, buffers and constants of the program in the order of its inputs, by their signature targets."""
    result = {}
    for spec in exported.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT:
            store = exported.state_dict if spec.target in exported.state_dict else exported.constants
            result[spec.target] = store[spec.target].detach()
    return result


def without_weights(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[str, ...]]:
    """A copy of the program with its weights as leading ordinary inputs, and their names in that order.

    Weights that no node reads are left out. The given program stays as it was.
    """
    kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    graph, names, specs = torch.fx.Graph(), [], []
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            lifted = kinds[node.name].kind != InputKind.USER_INPUT
            if lifted and not node.users:
                continue
            if lifted:
                names.append(str(kinds[node.name].target))
            specs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None, None))
        copies[node] = graph.node_copy(node, lambda given: copies[given])
        copies[node].meta = dict(node.meta)
    outputs = [spec.arg for spec in exported.graph_signature.output_specs]
    call = ModuleCallSignature(
        inputs=[spec.arg for spec in specs],
        outputs=outputs,
        in_spec=pytree.tree_flatten((tuple(range(len(specs))), {}))[1],
        out_spec=pytree.tree_flatten(tuple(range(len(outputs))))[1],
    )
    bare = ExportedProgram(
        root=torch.nn.Module(),
        graph=graph,
        graph_signature=ExportGraphSignature(specs, list(exported.graph_signature.output_specs)),
        state_dict={},
        range_constraints=dict(exported.range_constraints),
        module_call_graph=[ModuleCallEntry("", call)],
        example_inputs=None,
        constants={},
        verifiers=exported.verifiers,
    )
    return bare, tuple(names)


def save_graph(exported: ExportedProgram, path: Path) -> tuple[str, ...]:
    """Save the program without its weights; returns their names, in the order that `load_graph`'s function wants them."""
    bare, names = without_weights(exported)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=LEAF_WARNING, category=FutureWarning)
        torch.export.save(bare, path)
    return names


def load_graph(path: Path) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A saved program as a function of weights and inputs, run eagerly by torch. Raises ArtifactError."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=LEAF_WARNING, category=FutureWarning)
            module: Callable[..., tuple[torch.Tensor, ...]] = torch.export.load(path).graph_module
    except Exception as error:  # torch.export.load raises what its many readers raise
        raise ArtifactError(f"artifact file {str(path)!r} cannot be read by torch.export: {error}") from error
    return module


def summarize(exported: ExportedProgram, name: str) -> Program:
    """The torch-free Program: sizes by symbol, module paths, source lines, and a digest over graph and arguments.

    The digest covers wiring, argument order and every constant argument, dtypes and shapes; not names or weights.
    """
    symbols = symbol_names(exported)
    kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    inputs: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    nodes: list[Node] = []
    outputs: tuple[str, ...] = ()
    numbers: dict[torch.fx.Node, int] = {}
    canonical: list[Any] = []
    for node in exported.graph.nodes:
        numbers[node] = len(numbers)
        values = [_tensor(value, symbols) for value in pytree.tree_leaves(node.meta.get("val"))]
        if node.op == "placeholder":
            spec = kinds[node.name]
            lifted = spec.kind != InputKind.USER_INPUT
            (weights if lifted else inputs)[str(spec.target) if lifted else node.name] = values[0]
            canonical.append([spec.kind.name, [values[0].dtype, values[0].shape]])
        elif node.op == "output":
            outputs = tuple(item.name for item in node.all_input_nodes)
            canonical.append(["output", _canonical(node.args, numbers, symbols)])
        else:
            operator = str(node.target)
            arguments = [_canonical(node.args, numbers, symbols), _canonical(node.kwargs, numbers, symbols)]
            canonical.append([operator, arguments, [[item.dtype, item.shape] for item in values]])
            nodes.append(
                Node(
                    name=node.name,
                    operator=operator,
                    inputs=tuple(item.name for item in node.all_input_nodes),
                    outputs=tuple(values),
                    path=_module_path(node),
                    source=_source_line(node),
                )
            )
    text = json.dumps([canonical, sorted(map(str, exported.range_constraints.values()))], separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Program(name=name, inputs=inputs, weights=weights, nodes=tuple(nodes), outputs=outputs, digest=digest)


def _tensor(value: Any, symbols: dict[str, str]) -> Tensor:
    """The summary of one value; a number that the graph computes is a tensor without axes."""
    if isinstance(value, torch.Tensor):
        return Tensor(dtype=str(value.dtype).removeprefix("torch."), shape=tuple(_size(size, symbols) for size in value.shape))
    return Tensor(dtype=type(value).__name__, shape=())


def _size(size: Any, symbols: dict[str, str]) -> int | str:
    """A fixed size as a number, a symbolic one as text in B, T, P and R."""
    if isinstance(size, int):
        return size
    return re.sub(r"[su]\d+", lambda found: symbols.get(found.group(), found.group()), str(size))


def _canonical(value: Any, numbers: dict[torch.fx.Node, int], symbols: dict[str, str]) -> Any:
    """An argument as plain data: nodes by their number, everything else with its type."""
    if isinstance(value, torch.fx.Node):
        return {"node": numbers[value]}
    if isinstance(value, (list, tuple)):
        return [_canonical(item, numbers, symbols) for item in value]
    if isinstance(value, dict):
        return [[str(key), _canonical(item, numbers, symbols)] for key, item in sorted(value.items())]
    if isinstance(value, slice):
        return ["slice", *(_canonical(item, numbers, symbols) for item in (value.start, value.stop, value.step))]
    if isinstance(value, torch.SymInt):
        return ["size", _size(value, symbols)]
    return [type(value).__name__, repr(value)]


def _module_path(node: torch.fx.Node) -> str:
    """The innermost module that the node came from, as its path in the stage."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _source_line(node: torch.fx.Node) -> str:
    """The last `file:line` of the node's stack trace."""
    found = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    return f"{found[-1][0]}:{found[-1][1]}" if found else ""
