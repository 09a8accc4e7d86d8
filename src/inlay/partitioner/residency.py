"""Blocks that may not leave a trust zone: they run on devices whose node stands there, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inlay.cost import Chain
from inlay.errors import PartitionError
from inlay.hardware import Cluster, Place

HINT = "a residency is written REGEX=ZONE, for example embeddings=eu; zones are those of the nodes in the cluster file"


@dataclass(frozen=True)
class Residency:
    """Every block whose name, or the module path of one of whose nodes, has a match of the pattern stays in that zone."""

    pattern: str
    zone: str

    def __str__(self) -> str:
        return f"{self.pattern}={self.zone}"


def parse_residency(text: str) -> Residency:
    """`REGEX=ZONE` as a Residency. Raises PartitionError when it is spelled otherwise."""
    pattern, _, zone = text.rpartition("=")
    if not pattern or not zone:
        raise PartitionError(f"residency is {text!r}, expected REGEX=ZONE", hint=HINT)
    try:
        re.compile(pattern)
    except re.error as cause:
        raise PartitionError(f"residency {text!r} has no valid pattern: {cause}", hint=HINT) from cause
    return Residency(pattern, zone)


def outside_zones(
    chain: Chain, residencies: Sequence[Residency], *, cluster: Cluster, places: Iterable[Place]
) -> dict[tuple[int, Place], str]:
    """Why a block cannot be at a place, by block and place. Raises PartitionError for a zone that no node stands in and a
    pattern that matches nothing."""
    zones = sorted({node.zone for node in cluster.nodes.values() if node.zone})
    found: dict[tuple[int, Place], str] = {}
    for residency in residencies:
        if residency.zone not in zones:
            raise PartitionError(
                f"residency {str(residency)!r} names zone {residency.zone!r}, expected one of: {', '.join(zones) or 'none'}",
                hint="write `zone` at a node of the cluster file",
            )
        matched = [block for block in chain.blocks if chain.is_named(block, residency.pattern)]
        if not matched:
            names = ", ".join(block.name for block in chain.blocks[:6])
            raise PartitionError(
                f"residency {str(residency)!r} matches no block, expected a part of a name such as {names}", hint=HINT
            )
        for block in matched:
            for place in places:
                zone = cluster.nodes[cluster.device(place.device).node].zone
                if zone != residency.zone:
                    where = f"is in zone {zone!r}" if zone else "is in no zone"
                    found[block.index, place] = f"it must stay in zone {residency.zone!r}, and {place.device} {where}"
    return found
