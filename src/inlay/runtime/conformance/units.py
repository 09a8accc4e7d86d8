"""A unit: one sample of one operator inside a captured program that holds several, so that they are captured and compiled
together and still told apart. No torch: pieces are made of the program's summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from inlay.backends import Array
from inlay.graph import Piece, Program, is_number, structural_digest
from inlay.models import numpy_dtype

BFLOAT = "bfloat16"


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """`case` is what it is a sample of; `outputs` are the values that it computes, by name in its program."""

    name: str
    case: str
    outputs: tuple[str, ...]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Units of one captured program: its folder in the cache, and the file with the inputs and the truth of all of them."""

    name: str
    folder: str
    values: str
    units: tuple[Unit, ...]


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of some cases: groups, and by sample what was left out and why."""

    groups: tuple[Group, ...] = ()
    left_out: dict[str, str] = {}


def nodes_of(program: Program, outputs: Iterable[str]) -> tuple[str, ...]:
    """The nodes that these values depend on, in the order of the program."""
    known = {node.name: node for node in program.nodes}
    found: set[str] = set()
    pending = [name for name in outputs if name in known]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [item for item in known[name].inputs if item in known]
    return tuple(node.name for node in program.nodes if node.name in found)


def operators_of(program: Program, unit: Unit) -> tuple[str, ...]:
    """The operators of a unit, each once."""
    known = {node.name: node.operator for node in program.nodes}
    return tuple(dict.fromkeys(known[name] for name in nodes_of(program, unit.outputs)))


def piece_of_units(program: Program, units: Sequence[Unit]) -> Piece:
    """These units as one piece of code, as blocks are made pieces of."""
    outputs = tuple(dict.fromkeys(name for unit in units for name in unit.outputs))
    nodes = nodes_of(program, outputs)
    known = {node.name: node for node in program.nodes}
    read = {name for node in nodes for name in known[node].inputs}
    inputs = tuple(name for name in program.inputs if name in read)
    holders = [name for name in program.weight_nodes if name in read]
    given = [name for name in nodes if name in outputs and not is_number(known[name])]
    digest = structural_digest(program, nodes=nodes, inputs=inputs, weights=holders, outputs=given)
    weights = tuple(program.weight_nodes[name] for name in holders)
    return Piece(first=0, end=1, digest=digest, nodes=nodes, inputs=inputs, outputs=tuple(given), weights=weights)


def save_values(path: Path, arrays: Mapping[str, Array]) -> None:
    """Arrays by name in one .npz file; numpy has no name for bfloat16, so it goes as bits under a name that says so."""
    kept = {
        f"{name}:{BFLOAT}" if array.dtype.name == BFLOAT else name: array.view(np.uint16)
        if array.dtype.name == BFLOAT
        else array
        for name, array in arrays.items()
    }
    with open(path, "wb") as file:
        np.savez(file, **kept)  # type: ignore[arg-type]


def load_values(path: Path, names: Iterable[str] | None = None) -> dict[str, Array]:
    """What `save_values` wrote, nothing in it unpickled; only these names where given."""
    wanted = None if names is None else set(names)
    found: dict[str, Array] = {}
    with np.load(path, allow_pickle=False) as held:
        for key in held.files:
            name, _, kind = key.partition(":")
            if wanted is None or name in wanted:
                found[name] = held[key].view(numpy_dtype(BFLOAT)) if kind == BFLOAT else held[key]
    return found
