"""A torch door of graph: cut a piece out of an ExportedProgram, exactly. Weights stay lifted, under their names, and shared.

Called by `graph.capture` (to flatten a program), by `runtime.lower` (blocks and pieces of a stage) and by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Node

from inlay.errors import UnsupportedError
from inlay.graph.region import Piece, weight_name


def extract(
    exported: ExportedProgram,
    nodes: Sequence[Node],
    outputs: Sequence[Node],
    *,
    inputs: Sequence[Node] | None = None,
    freed: Sequence[Node] = (),
    weight_names: Mapping[str, str] | None = None,
) -> ExportedProgram:
    """The piece made of these call_function nodes, in their order, that gives the values of `outputs` as a flat tuple.

    Its user inputs are a flat tuple too: `inputs` where given (also those it does not read), else what it needs in the
    order of first use. Numbers of the graph (sizes) never cross: they are read from the piece's own inputs, or their
    producers are repeated. `freed` are lifted buffers that become user inputs; `weight_names` gives some of the lifted
    weights other names. Metadata and ranges are kept.
    Raises UnsupportedError for a size that cannot be rebuilt, naming it.
    """
    piece = _Piece(exported, nodes, inputs=inputs, freed=freed, weight_names=weight_names or {})
    graph = piece.graph
    results = [piece.copied[node] for node in outputs]
    graph.output(tuple(results)).meta = {"val": tuple(node.meta["val"] for node in results)}
    graph.lint()
    call = ModuleCallSignature(
        inputs=[TensorArgument(piece.copied[node].name) for node in piece.inputs],
        # Without names: decomposing may replace these nodes, and torch then misses them (one that is a getitem, always).
        outputs=[TensorArgument("") for _ in results],
        in_spec=pytree.tree_flatten((tuple(range(len(piece.inputs))), {}))[1],
        out_spec=pytree.tree_flatten(tuple(range(len(results))))[1],
    )
    kept = _symbols(graph)
    return ExportedProgram(
        root=piece.root,
        graph=graph,
        graph_signature=ExportGraphSignature(
            piece.specs, [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in results]
        ),
        state_dict=piece.state,
        constants=piece.constants,
        range_constraints={key: value for key, value in exported.range_constraints.items() if key in kept},
        module_call_graph=[ModuleCallEntry("", call)],
        example_inputs=None,
        verifiers=exported.verifiers,
    )


def extract_piece(exported: ExportedProgram, piece: Piece) -> ExportedProgram:
    """The code of a piece, from the flat program that its blocks were cut from.

    Weights are called `weight.0`, `weight.1`, ... in the piece's order, so that equal pieces have equal code whatever
    weights they are given.
    """
    by_name = {node.name: node for node in exported.graph.nodes}
    return extract(
        exported,
        [by_name[name] for name in piece.nodes],
        [by_name[name] for name in piece.outputs],
        inputs=[by_name[name] for name in piece.inputs],
        weight_names={name: weight_name(index) for index, name in enumerate(piece.weights)},
    )


def is_number(node: Node) -> bool:
    """Whether a node's value is a Python or symbolic number, not a tensor."""
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool))


def needed_for(outputs: Sequence[Node], *, stop: Callable[[Node], bool] = lambda node: False) -> list[Node]:
    """The call_function nodes that these values depend on, in execution order, not looking behind a node that stops."""
    found: set[Node] = set()
    pending = [node for node in outputs if not stop(node)]
    while pending:
        node = pending.pop()
        if node in found or node.op != "call_function":
            continue
        found.add(node)
        pending += [item for item in node.all_input_nodes if not stop(item)]
    if not found:
        return []
    return [node for node in next(iter(found)).graph.nodes if node in found]


class _Piece:
    """The new graph while it is built: placeholders, rebuilt sizes, then copies of the nodes."""

    def __init__(
        self,
        exported: ExportedProgram,
        nodes: Sequence[Node],
        *,
        inputs: Sequence[Node] | None,
        freed: Sequence[Node],
        weight_names: Mapping[str, str],
    ) -> None:
        self.graph, self.root = torch.fx.Graph(), torch.nn.Module()
        self.copied: dict[Node, Node] = {}
        self.specs: list[InputSpec] = []
        self.state: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}
        self._exported = exported
        self._specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
        self._freed = set(freed)
        inside = set(nodes)
        need = list(dict.fromkeys(item for node in nodes for item in node.all_input_nodes if item not in inside))
        tensors = [node for node in need if not self._lifted(node) and not is_number(node) and node.op != "get_attr"]
        self.inputs = list(tensors if inputs is None else inputs)
        strange = [node for node in tensors if node not in self.inputs]
        if strange:
            raise UnsupportedError(f"value {strange[0].name!r} is needed by this piece and is not among its inputs")
        order = {name: at for at, name in enumerate(weight_names)}
        lifted = [node for node in need if self._lifted(node)]
        for node in sorted(lifted, key=lambda item: order.get(str(self._specs[item.name].target), len(order))):
            self._add_weight(node, weight_names)
        for node in self._size_givers(need) if inputs is None else ():
            self.inputs.append(node)
        for node in self.inputs:
            self._add_input(node)
        for node in need:
            if node.op == "get_attr":
                self._add_module(node)
            elif node not in self.copied:
                self._rebuild(node)
        for node in nodes:
            if node not in self.copied:
                self.copied[node] = self.graph.node_copy(node, self._rebuild)
                self.copied[node].meta = dict(node.meta)

    def _lifted(self, node: Node) -> bool:
        if node.op != "placeholder" or node in self._freed:
            return False
        return bool(self._specs[node.name].kind != InputKind.USER_INPUT)

    def _add_weight(self, node: Node, names: Mapping[str, str]) -> None:
        spec = self._specs[node.name]
        placeholder = self.graph.placeholder(node.name)
        placeholder.meta = dict(node.meta)
        self.copied[node] = placeholder
        target = names.get(str(spec.target), spec.target)
        self.specs.append(InputSpec(spec.kind, TensorArgument(placeholder.name), target, spec.persistent))
        held = spec.target in self._exported.state_dict
        source = self._exported.state_dict if held else self._exported.constants
        (self.state if held else self.constants)[str(target)] = source[spec.target]

    def _add_input(self, node: Node) -> None:
        placeholder = self.graph.placeholder(node.name)
        placeholder.meta = {"val": node.meta["val"]}
        self.copied[node] = placeholder
        self.specs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(placeholder.name), None))

    def _add_module(self, node: Node) -> None:
        """The body of a higher-order operator."""
        module: Any = self._exported.graph_module
        for part in str(node.target).split("."):
            module = getattr(module, part)
        name = str(node.target).replace(".", "_")
        setattr(self.root, name, module)
        self.copied[node] = self.graph.get_attr(name)
        self.copied[node].meta = dict(node.meta)

    def _size_givers(self, need: Sequence[Node]) -> list[Node]:
        """Program inputs to add only because a size that the piece needs stands in none of its own inputs."""
        added: list[Node] = []
        users = [node for node in self._exported.graph.nodes if node.op == "placeholder" and not self._lifted(node)]
        for node in need:
            for leaf in _number_roots(node) if is_number(node) else ():
                if _standing_in([*self.inputs, *added], leaf) is None and leaf.op == "call_function":
                    source = next((item for item in users if _standing_in([item], leaf) is not None), None)
                    if source is not None and source not in added:
                        added.append(source)
        return added

    def _rebuild(self, node: Node) -> Node:
        """A copied node; a number is read from an input that has it as a size, else computed again from its producers."""
        if node in self.copied:
            return self.copied[node]
        found = _standing_in(self.inputs, node)
        if found is not None:
            owner, axis = found
            copy = self.graph.call_function(torch.ops.aten.sym_size.int, (self.copied[owner], axis))
            copy.meta = {"val": node.meta["val"]}
        elif node.op == "call_function" and all(is_number(item) for item in node.all_input_nodes) and is_number(node):
            arguments = torch.fx.node.map_arg(node.args, self._rebuild)
            copy = self.graph.call_function(node.target, arguments, dict(node.kwargs))
            copy.meta = dict(node.meta)
        else:
            raise UnsupportedError(
                f"size {node.name!r} = {node.meta.get('val')} cannot be rebuilt in this piece: none of its inputs has it",
                hint="pin the pieces before and after it to one place",
            )
        self.copied[node] = copy
        return copy


def _standing_in(inputs: Sequence[Node], node: Node) -> tuple[Node, int] | None:
    """The input and axis whose size is this symbolic number, if there is one."""
    value = node.meta.get("val")
    if not isinstance(value, torch.SymInt):
        return None
    for item in inputs:
        for axis, size in enumerate(item.meta["val"].shape):
            if isinstance(size, torch.SymInt) and size.node.expr == value.node.expr:
                return item, axis
    return None


def _number_roots(node: Node) -> list[Node]:
    """The numbers that this number is computed from and that are read from tensors themselves."""
    roots, pending = [], [node]
    while pending:
        item = pending.pop()
        numbers = [inner for inner in item.all_input_nodes if is_number(inner)]
        if numbers and len(numbers) == len(item.all_input_nodes):
            pending += numbers
        else:
            roots.append(item)
    return roots


def _symbols(graph: torch.fx.Graph) -> set[Any]:
    """All symbols in the shapes and numbers of a graph."""
    leaves = [leaf for node in graph.nodes for leaf in pytree.tree_leaves(node.meta.get("val"))]
    sizes = [size for leaf in leaves for size in (leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,))]
    return {symbol for size in sizes if isinstance(size, torch.SymInt) for symbol in size.node.expr.free_symbols}
