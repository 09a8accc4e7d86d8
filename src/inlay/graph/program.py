"""Program: what is known of a captured graph without torch. Made by `graph.capture`, read by deciders and backends."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from inlay.graph.sizes import Size, shape_value

ITEM_BYTES = {
    "float64": 8, "int64": 8, "complex64": 8, "complex128": 16, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2,
    "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """Dtype and shape of a value; a text entry of the shape is a symbolic size (`graph.sizes`)."""

    dtype: str
    shape: tuple[Size, ...]

    def elements(self, sizes: Mapping[str, int]) -> int:
        """How many numbers it holds."""
        return math.prod(shape_value(self.shape, sizes))

    def bytes(self, sizes: Mapping[str, int]) -> int:
        """Its size; a Python number counts as 8 bytes."""
        return self.elements(sizes) * ITEM_BYTES.get(self.dtype, 8)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One operation in execution order: `operator` as torch names it (aten.mm.default), its inputs by node name,
    the path of the module it came from and the user's source line where known. `arguments` is JSON of all arguments, in
    which {"node": name} stands for another value. `value` is the size that a number of the graph is, where known."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    path: str = ""
    source: str = ""
    arguments: str = ""
    value: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A buffer that the program changes while it runs: `input` reads it, `output` is its value after the run."""

    name: str
    input: str
    output: str


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A captured graph: inputs, weights (by their names), nodes in order, outputs (by node name).

    `results` names the outputs as the module does, in the same order. `weight_nodes` maps the node name of each weight to
    its name. `states` are buffers that it changes. `ranges` bounds its symbols, both ends included.
    """

    name: str
    inputs: dict[str, Tensor]
    weights: dict[str, Tensor]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    digest: str
    results: tuple[str, ...] = ()
    weight_nodes: dict[str, str] = {}
    states: tuple[State, ...] = ()
    ranges: dict[str, tuple[int, int]] = {}


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A piece between two narrow cuts. Equal pieces have equal digests, whatever their weights.

    `nodes` are its own, `replicated` cheap producers repeated in it, both in order; `inputs` the values that come in
    (program inputs, states, values of earlier blocks) and `outputs` those that leave, both in the order of its ports;
    `weights` the names of its weights in the order of its code.
    """

    index: int
    name: str
    digest: str
    nodes: tuple[str, ...]
    replicated: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]
