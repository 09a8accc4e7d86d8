"""What will happen when on the virtual clock. What falls on one moment comes in an order that does not depend on who put it
there first, so that a run in which fewer things were put there gives the same."""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

REPORT, ROWS, LINK, ARRIVAL_OF_KV, TICK, FAILURE, REQUEST = range(7)
"""Kinds, in the order in which they come at one moment."""


class Moment(NamedTuple):
    """When something happens: seconds, kind, and the number of the runner, link, transfer or request."""

    at: float
    kind: int
    number: int


class Queue:
    """Moments with what belongs to them, the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, int, Any]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, at: float, kind: int, number: int, what: Any = None) -> None:
        """Let something happen."""
        self._serial += 1
        heapq.heappush(self._heap, (at, kind, number, self._serial, what))

    def take(self) -> tuple[Moment, Any]:
        """The next one."""
        at, kind, number, _, what = heapq.heappop(self._heap)
        return Moment(at, kind, number), what
