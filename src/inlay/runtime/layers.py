"""Which nodes of a captured stage make the piece that owns a run of its layers. Pure, torch-free.

Whatever needs neither values of the tokens nor the past (positions, masks, rotary tables, a weight plus one) is repeated in
each piece that needs it. One tensor crosses a cut, the hidden state. A model in which anything else crosses is refused.
Called by `runtime.lower`, which cuts the piece out with `graph.extract`.
"""

from __future__ import annotations

from dataclasses import dataclass

from inlay.errors import UnsupportedError
from inlay.graph import Node, Program, is_number, layer_of
from inlay.specs.stage import StageShape

PATH_LEVELS = 3
"""How many indices of a module path are looked at for the number of the layer."""
HINT = "serve it with all layers on one device"


@dataclass(frozen=True, slots=True)
class StagePiece:
    """Names of nodes in order, and of the values at its ports, in the order of `shape`."""

    shape: StageShape
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def cut_layers(program: Program, stage: StageShape, *, first: int, end: int) -> StagePiece:
    """The piece that owns layers `first` to `end`, not included, of a whole stage.

    Raises UnsupportedError, naming what is in the way.
    """
    depth = len(stage.layers)
    if not 0 <= first < end <= depth:
        raise UnsupportedError(f"layers {first} to {end} of {program.name}, expected a run within 0 to {depth}")
    layers = _Layers(program, stage)
    entering = layers.crossing(first) if first else None
    leaving = layers.crossing(end) if end < depth else None
    given, results = list(program.inputs), program.outputs
    hidden = layers.hidden_size(entering or leaving) if entering or leaving else 0
    shape = stage.piece(first, end, hidden=hidden)
    inputs = [given[stage.entry] if entering is None else entering, given[stage.past_lengths]]
    inputs += [given[stage.logit_rows]] if shape.ends else []
    outputs = [results[0] if leaving is None else leaving]
    for past, new in ((stage.past_key, stage.new_key), (stage.past_value, stage.new_value)):
        inputs += [given[past(layer)] for layer in range(first, end)]
        outputs += [results[new(layer) - stage.inputs] for layer in range(first, end)]
    nodes = layers.needed(outputs, stop=set(inputs))
    for node in nodes:
        layer = layers.layer(node.name, default=first)
        strange = next((item for item in node.inputs if item in program.inputs and item not in inputs), None)
        if not first <= layer < end or strange is not None:
            what = f"input {strange!r}" if strange else f"{_described(node)} of layer {layer}"
            raise UnsupportedError(
                f"{program.name}: layers {first} to {end - 1} need {what} beside the hidden state, so they cannot be cut out",
                hint=HINT,
            )
    return StagePiece(shape, tuple(node.name for node in nodes), tuple(inputs), tuple(outputs))


class _Layers:
    """The nodes of a stage told apart: numbers and what may be repeated, which have no layer, and all others, which have
    one."""

    def __init__(self, program: Program, stage: StageShape) -> None:
        self._program, self._depth = program, len(stage.layers)
        self._nodes = {node.name: node for node in program.nodes}
        self._numbers = {node.name for node in program.nodes if is_number(node)}
        given = list(program.inputs)
        free = {*program.weight_nodes, given[stage.past_lengths], given[stage.logit_rows]}
        for node in program.nodes:
            if node.name not in self._numbers and all(item in free or item in self._numbers for item in node.inputs):
                free.add(node.name)
        level, stem = self._stack()
        self._layer: dict[str, int] = {}
        for node in program.nodes:
            if node.name not in free and node.name not in self._numbers:
                self._layer[node.name] = self._place(node, level, stem)

    def layer(self, name: str, *, default: int) -> int:
        """The layer that a node belongs to; what comes before all layers is with the first, after all with the last."""
        return max(0, self._layer.get(name, default))

    def crossing(self, cut: int) -> str:
        """The one value that layers from `cut` on need of those before."""
        later = {item for name, at in self._layer.items() if at >= cut for item in self._nodes[name].inputs}
        found = [name for name, at in self._layer.items() if at < cut and name in later]
        if len(found) != 1:
            shown = ", ".join(_described(self._nodes[name]) for name in found[:4]) or "none"
            raise UnsupportedError(
                f"{self._program.name}: {len(found)} values cross the cut before layer {cut} ({shown}), expected the hidden "
                "state alone",
                hint=HINT,
            )
        self.hidden_size(found[0])
        return found[0]

    def hidden_size(self, name: str | None) -> int:
        """The last axis of a hidden state float32 [B, T, d]."""
        node = self._nodes[name or ""]
        tensor = node.outputs[0] if len(node.outputs) == 1 else None
        if tensor is None or tensor.dtype != "float32" or len(tensor.shape) != 3 or not isinstance(tensor.shape[2], int):
            raise UnsupportedError(
                f"{self._program.name}: {_described(node)} crosses a cut, expected a hidden state float32 [B, T, d]", hint=HINT
            )
        return tensor.shape[2]

    def needed(self, outputs: list[str], *, stop: set[str]) -> list[Node]:
        """Nodes but numbers that these values depend on, in order, not looking behind what a piece is given."""
        found: set[str] = set()
        pending = [name for name in outputs if name not in stop]
        while pending:
            name = pending.pop()
            if name not in found and name in self._nodes and name not in self._numbers:
                found.add(name)
                pending += [item for item in self._nodes[name].inputs if item not in stop]
        return [node for node in self._program.nodes if node.name in found]

    def _stack(self) -> tuple[int, str]:
        """Where in module paths the number of the layer stands: the level of its index, and the path of the list."""
        for level in range(PATH_LEVELS):
            lists: dict[str, set[int]] = {}
            for node in self._program.nodes:
                stem, _, index = layer_of(node.path, level).rpartition(".")
                if index:
                    lists.setdefault(stem, set()).add(int(index))
            for stem, indices in lists.items():
                if indices == set(range(self._depth)):
                    return level, stem
        raise UnsupportedError(
            f"{self._program.name} has no list of {self._depth} layers that its module paths tell apart", hint=HINT
        )

    def _place(self, node: Node, level: int, stem: str) -> int:
        """The layer of its path, else the latest layer that it needs; -1 before all layers."""
        before = max((self._layer.get(item, -1) for item in node.inputs), default=-1)
        found, _, index = layer_of(node.path, level).rpartition(".")
        if found != stem or not index:
            return before
        if int(index) < before:
            raise UnsupportedError(
                f"{self._program.name}: {_described(node)} of layer {index} needs a value of layer {before}", hint=HINT
            )
        return int(index)


def _described(node: Node) -> str:
    return f"{node.name!r} ({node.operator}{f' in {node.path}' if node.path else ''})"
