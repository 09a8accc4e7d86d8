"""A torch door of graph: the torch-free Program of an ExportedProgram. Called by `graph.capture` and `runtime.lower`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from inlay.graph.digest import structural_digest
from inlay.graph.program import Node, Program, State, Tensor

STAGE_SYMBOLS = {
    "tokens": ("B", "T"),
    "past_lengths": ("B",),
    "logit_rows": ("R",),
    "past_k": ("B", None, "P"),
    "past_v": ("B", None, "P"),
}
PAGED_SYMBOLS = {
    "tokens": ("N",), "logit_rows": ("R",), "past_lengths": ("B",), "row_begins": ("B + 1",), "pages": ("G",),
    "key_pages": ("K",), "value_pages": ("K",),
}  # fmt: skip


def stage_symbols(exported: ExportedProgram) -> dict[str, str]:
    """The names of the symbolic sizes, read from where they appear in the inputs of a stage program."""
    found: dict[str, str] = {}
    lifted = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind != InputKind.USER_INPUT}
    is_paged = any(node.name == "page_begins" for node in exported.graph.nodes)
    names = PAGED_SYMBOLS if is_paged else STAGE_SYMBOLS
    for node in exported.graph.nodes:
        if node.op != "placeholder" or node.name in lifted:
            continue
        base = re.sub(r"_\d+$", "", node.name) if node.name not in names else node.name
        for size, symbol in zip(node.meta["val"].shape, names.get(base, ()), strict=False):
            if symbol is not None and isinstance(size, torch.SymInt):
                found.setdefault(str(size), symbol)
    return found


def summarize(
    exported: ExportedProgram,
    name: str,
    *,
    symbols: Mapping[str, str] | None = None,
    results: Sequence[tuple[str, str]] | None = None,
    states: Sequence[State] = (),
    ranges: Mapping[str, tuple[int, int]] | None = None,
) -> Program:
    """Sizes by symbol, module paths, source lines, and a digest over graph and arguments.

    `symbols` names torch's symbols (those of a stage where not given); `results` are (name, node) of the outputs where
    they are not just the graph's own. The digest covers wiring, argument order, every constant argument, dtypes and
    shapes; not names or weights.
    """
    known = stage_symbols(exported) if symbols is None else dict(symbols)
    kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    inputs: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    weight_nodes: dict[str, str] = {}
    nodes: list[Node] = []
    outputs: tuple[str, ...] = ()
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            if not isinstance(node.meta["val"], torch.Tensor):
                continue
            spec, value = kinds[node.name], _tensor(node.meta["val"], known)
            if spec.kind == InputKind.USER_INPUT:
                inputs[node.name] = value
            else:
                weights[str(spec.target)] = value
                weight_nodes[node.name] = str(spec.target)
        elif node.op == "output":
            outputs = tuple(leaf.name for leaf in pytree.tree_leaves(node.args) if isinstance(leaf, torch.fx.Node))
        elif node.op == "call_function":
            nodes.append(_node(exported, node, known))
    named = [(f"output.{index}", item) for index, item in enumerate(outputs)] if results is None else list(results)
    program = Program(
        name=name,
        inputs=inputs,
        weights=weights,
        nodes=tuple(nodes),
        outputs=tuple(node for _, node in named),
        digest="",
        results=tuple(key for key, _ in named),
        weight_nodes=weight_nodes,
        states=tuple(states),
        ranges=dict(ranges or {}),
    )
    digest = structural_digest(
        program,
        nodes=[node.name for node in nodes],
        inputs=list(inputs),
        weights=list(weight_nodes),
        outputs=[*program.outputs, *(item for state in states for item in (state.input, state.output))],
    )
    return Program(
        **{field: getattr(program, field) for field in Program.__struct_fields__ if field != "digest"}, digest=digest
    )


def _node(exported: ExportedProgram, node: torch.fx.Node, symbols: Mapping[str, str]) -> Node:
    arguments = [_canonical(exported, item, symbols) for item in (node.args, node.kwargs)]
    return Node(
        name=node.name,
        operator=str(node.target),
        inputs=tuple(item.name for item in node.all_input_nodes if item.op != "get_attr"),
        outputs=tuple(_tensor(value, symbols) for value in pytree.tree_leaves(node.meta.get("val"))),
        path=_module_path(node),
        source=_source_line(node),
        arguments=json.dumps(arguments, separators=(",", ":")),
        value=str(_size(node.meta["val"], symbols)) if isinstance(node.meta.get("val"), torch.SymInt) else "",
    )


def _tensor(value: Any, symbols: Mapping[str, str]) -> Tensor:
    """The summary of one value; a number that the graph computes is a tensor without axes."""
    if isinstance(value, torch.Tensor):
        return Tensor(dtype=str(value.dtype).removeprefix("torch."), shape=tuple(_size(size, symbols) for size in value.shape))
    return Tensor(dtype=type(value).__name__, shape=())


def _size(size: Any, symbols: Mapping[str, str]) -> int | str:
    """A fixed size as a number, a symbolic one as text in the names of its symbols."""
    if isinstance(size, int):
        return size
    return re.sub(r"\b[suz]\d+\b", lambda found: symbols.get(found.group(), found.group()), str(size))


def _canonical(exported: ExportedProgram, value: Any, symbols: Mapping[str, str]) -> Any:
    """An argument as plain data: nodes by their name, everything else with its type."""
    if isinstance(value, torch.fx.Node):
        if value.op == "get_attr":
            body = getattr(exported.graph_module, str(value.target), None)
            return {"body": hashlib.sha256(str(getattr(body, "code", body)).encode()).hexdigest()}
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        return [_canonical(exported, item, symbols) for item in value]
    if isinstance(value, dict):
        return [[str(key), _canonical(exported, item, symbols)] for key, item in sorted(value.items())]
    if isinstance(value, slice):
        return ["slice", *(_canonical(exported, item, symbols) for item in (value.start, value.stop, value.step))]
    if isinstance(value, torch.SymInt):
        return ["size", _size(value, symbols)]
    return [type(value).__name__, repr(value)]


def _module_path(node: torch.fx.Node) -> str:
    """The innermost module that the node came from, as its path in the captured module.

    A module that is called again has `@1`, `@2`, ... behind the first of its names that all of it shares: layers that
    share their weights are told apart.
    """
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    for key, entry in stack.items():
        call, outer = re.search(r"@\d+$", str(key)), str(entry[0])
        if call is not None and outer and path.startswith(outer):
            path = outer + call.group() + path.removeprefix(outer)
            break
    return re.sub(r"\.slice\([^)]*\)", "", path)


def _source_line(node: torch.fx.Node) -> str:
    """The last `file:line` of the node's stack trace that is not torch's own, else the last one."""
    found = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    outside = [item for item in found if "/torch/" not in item[0]] or found
    return f"{outside[-1][0]}:{outside[-1][1]}" if outside else ""
