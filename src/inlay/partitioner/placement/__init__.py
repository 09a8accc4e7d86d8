"""Places the tasks of a graph on devices of a few kinds: exact where it can be, always with a bound. Numbers alone."""

from __future__ import annotations

from inlay.partitioner.placement.compiled import is_compiled
from inlay.partitioner.placement.graph import (
    Amounts,
    DeviceKind,
    Piece,
    Placement,
    TaskGraph,
    TaskValue,
    achieved,
    check_placement,
)
from inlay.partitioner.placement.intervals import run_placement
from inlay.partitioner.placement.ladder import frontier, place

__all__ = [
    "Amounts",
    "DeviceKind",
    "Piece",
    "Placement",
    "TaskGraph",
    "TaskValue",
    "achieved",
    "check_placement",
    "frontier",
    "is_compiled",
    "place",
    "run_placement",
]
