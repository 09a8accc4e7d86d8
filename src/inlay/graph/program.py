"""Program: what is known of a captured graph without torch. Made by `graph.capture`, read by deciders and backends."""

from __future__ import annotations

import msgspec


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """Dtype and shape of a value; a text entry of the shape is a symbolic size."""

    dtype: str
    shape: tuple[int | str, ...]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One operation in execution order: `operator` as torch names it (aten.mm.default), its inputs by node name,
    the path of the module it came from and the user's source line where known."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    path: str = ""
    source: str = ""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A captured graph: inputs, weights (by their names), nodes in order, outputs (by node name)."""

    name: str
    inputs: dict[str, Tensor]
    weights: dict[str, Tensor]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    digest: str
