"""What a plan must obey: pins, what each backend refuses and keeps together, and states that have one owner."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inlay.cost import Chain
from inlay.errors import ClusterError, PartitionError
from inlay.graph import Block
from inlay.hardware import Place, parse_place
from inlay.specs.capability import Capability

PIN_HINT = "a pin is written REGEX=DEVICE/BACKEND, for example layers\\.0\\.=cpu:0/openvino"


@dataclass(frozen=True)
class Pin:
    """Every block whose name, or the module path of one of whose nodes, has a match of the pattern goes to that place."""

    pattern: str
    place: Place

    def __str__(self) -> str:
        return f"{self.pattern}={self.place}"

    def matches(self, chain: Chain, block: Block) -> bool:
        """Whether it holds for that block; cheap producers that are repeated in it do not count."""
        return chain.is_named(block, self.pattern)


def parse_pin(text: str) -> Pin:
    """`REGEX=DEVICE/BACKEND` as a Pin. Raises PartitionError when it is spelled otherwise."""
    pattern, equals, place = text.rpartition("=")
    if not equals or not pattern:
        raise PartitionError(f"pin is {text!r}, expected REGEX=DEVICE/BACKEND", hint=PIN_HINT)
    try:
        re.compile(pattern)
        return Pin(pattern, parse_place(place))
    except re.error as cause:
        raise PartitionError(f"pin {text!r} has no valid pattern: {cause}", hint=PIN_HINT) from cause
    except ClusterError as cause:
        raise PartitionError(f"pin {text!r}: {cause.message}", hint=cause.hint) from cause


def pinned_blocks(chain: Chain, pins: Sequence[Pin], *, places: Iterable[Place]) -> dict[int, Pin]:
    """The pin of every block that has one. Raises PartitionError for a pin to no known place, one that matches nothing,
    and two that want one block at different places."""
    known = sorted(set(places))
    found: dict[int, Pin] = {}
    for pin in pins:
        if pin.place not in known:
            raise PartitionError(
                f"pin {str(pin)!r} names {pin.place}, expected one of {', '.join(map(str, known)) or 'no place at all'}",
                hint="`inlay devices` shows what is here",
            )
        matched = [block for block in chain.blocks if pin.matches(chain, block)]
        if not matched:
            names = ", ".join(block.name for block in chain.blocks[:6])
            raise PartitionError(f"pin {str(pin)!r} matches no block, expected a part of a name such as {names}", hint=PIN_HINT)
        for block in matched:
            other = found.setdefault(block.index, pin)
            if other.place != pin.place:
                raise PartitionError(
                    f"block {block.name!r} is pinned to {other.place} by {other.pattern!r} and to {pin.place} by "
                    f"{pin.pattern!r}, expected one place",
                    hint="narrow one of the two patterns",
                )
    return found


def refused_blocks(chain: Chain, offers: Mapping[Place, Capability]) -> dict[tuple[int, Place], str]:
    """Why a block cannot be at a place, by block and place: the first of its nodes that the backend refuses."""
    refused: dict[tuple[int, Place], str] = {}
    for place, offer in offers.items():
        answers = {answer.node: answer for answer in offer.nodes}
        for block in chain.blocks:
            for name in (*block.replicated, *block.nodes):
                answer, node = answers.get(name), chain.nodes[name]
                if answer is None or not answer.supported:
                    reason = answer.reason if answer is not None else "it says nothing of this node"
                    where = f" ({node.source})" if node.source else ""
                    refused[block.index, place] = f"{place.backend} does not take {node.operator}{where}: {reason}"
                    break
    return refused


def kept_together(chain: Chain, offers: Mapping[Place, Capability]) -> dict[Place, tuple[tuple[int, int], ...]]:
    """By place, the runs of two or more blocks that its backend keeps as one (an atomic group of nodes lies across them)."""
    owner = {name: block.index for block in chain.blocks for name in block.nodes}
    found: dict[Place, tuple[tuple[int, int], ...]] = {}
    for place, offer in offers.items():
        groups: dict[str, list[int]] = {}
        for answer in offer.nodes:
            if answer.group is not None and answer.node in owner:
                groups.setdefault(answer.group, []).append(owner[answer.node])
        runs = ((min(held), max(held) + 1) for held in groups.values())
        found[place] = tuple(sorted({run for run in runs if run[1] - run[0] > 1}))
    return found


def state_owners(chain: Chain) -> dict[str, tuple[int, int]]:
    """For each state, the run of blocks from the first to the last that read or write it; one region must hold all of it.

    Raises PartitionError for a state that no block touches.
    """
    owners: dict[str, tuple[int, int]] = {}
    for state in chain.program.states:
        names = {state.input, state.output}
        touched = [block.index for block in chain.blocks if names & {*block.inputs, *block.outputs, *block.nodes}]
        if not touched:
            raise PartitionError(
                f"state {state.name!r} is read and written by no block, expected one owner", hint="cut the program anew"
            )
        owners[state.name] = (touched[0], touched[-1] + 1)
    return owners


def glued_cuts(owners: Mapping[str, tuple[int, int]]) -> frozenset[int]:
    """Positions at which the chain must not be cut, since a state lies across them."""
    return frozenset(at for first, end in owners.values() for at in range(first + 1, end))
