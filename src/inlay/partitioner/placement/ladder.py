"""The placement of a graph by the cheapest exact method that will do, with its bound: single devices, minimum cut, dynamic
programming over ideals, then the mixed-integer programme."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from inlay.errors import PartitionError
from inlay.partitioner.placement.cut import least_cut
from inlay.partitioner.placement.graph import INFINITE, Piece, Placement, TaskGraph, achieved
from inlay.partitioner.placement.latency import fastest_sample
from inlay.partitioner.placement.programme import Programme
from inlay.partitioner.placement.throughput import fastest_stream

MOST_CHOICES = 4_000
"""Of a task, a row and a kind: a programme with more is not written down, it would take longer than it is given."""
NEAR = 1e-9
"""A gap that is rounding alone, as a share."""


def place(
    graph: TaskGraph,
    objective: str,
    *,
    within: Mapping[str, float] | None = None,
    pins: Mapping[int, int] | None = None,
    seconds: float = 300.0,
) -> Placement | None:
    """The best placement of a graph, or None where none fits.

    `objective` is "latency" (of one sample), "throughput" (the load of the busiest device) or the name of an amount, such as
    "cost"; `within` are the most that others may come to; `pins` the kinds that tasks must be on. Every answer has a bound;
    where the time ended before the proof, its gap says so. Raises PartitionError for an unknown objective or budget, and
    where the graph is too large for the one method that is left.
    """
    limits, forced, until = dict(within or {}), dict(pins or {}), time.monotonic() + seconds
    _check(graph, [objective, *limits])
    pinned = _pinned(graph, forced)
    floor = best_single(pinned, objective, limits)
    if not limits:
        found = _by_structure(pinned, objective, seconds)
        if found is not None and found.gap <= NEAR:
            return found
    else:
        found = None
    start = min((item for item in (floor, found) if item is not None), key=lambda item: item.value, default=None)
    solved = None
    if _choices(pinned) <= MOST_CHOICES:
        solved = Programme(pinned, objective, limits, forced, max(1.0, until - time.monotonic())).solve(start)
    elif start is None:
        raise PartitionError(
            f"no placement of {graph.count} tasks was found, and the programme for it would have {_choices(pinned)} choices, "
            f"expected at most {MOST_CHOICES}",
            hint="give it more seconds, merge tasks, or use run_placement for throughput",
        )
    best = min((item for item in (start, solved) if item is not None), key=lambda item: item.value, default=None)
    if best is None:
        return None
    bounds = [item.bound for item in (found, solved) if item is not None]
    bound = min(best.value, max(bounds, default=0.0))
    method = best.method if bound > 0.0 or best.value == 0.0 else f"{best.method}: no certificate"
    return replace(best, bound=bound, method=method)


def _choices(graph: TaskGraph) -> int:
    """How many binary choices of a task, a row and a kind the programme has."""
    counts = [graph.count if kind.count is None else kind.count for kind in graph.kinds]
    return graph.count * min(sum(counts), graph.count) * len(graph.kinds)


def best_single(graph: TaskGraph, objective: str, within: Mapping[str, float]) -> Placement | None:
    """The best single device that takes all of it within the budgets; its bound is zero."""
    tasks, found = tuple(range(graph.count)), []
    for number, kind in enumerate(graph.kinds):
        fits = kind.capacity is None or sum(kind.memory) <= kind.capacity
        if kind.count == 0 or not fits or INFINITE in kind.seconds:
            continue
        pieces = (Piece(number, tasks),)
        if all(achieved(graph, pieces, name) <= most for name, most in within.items()):
            found.append(Placement(pieces, achieved(graph, pieces, objective), 0.0, f"all of it on {kind.name}"))
    return min(found, key=lambda item: item.value, default=None)


def frontier(graph: TaskGraph, objective: str, other: str, *, points: int = 8, seconds: float = 60.0) -> tuple[Placement, ...]:
    """Placements that no other beats in both objectives, by tightening a budget on `other` step by step."""
    best = place(graph, objective, seconds=seconds)
    least = place(graph, other, seconds=seconds)
    if best is None or least is None:
        return ()
    most, fewest = achieved(graph, best.pieces, other), least.value
    found: list[Placement] = []
    for step in range(points):
        limit = most - (most - fewest) * step / max(points - 1, 1)
        item = place(graph, objective, within={other: limit * (1 + NEAR)}, seconds=seconds)
        if item is not None and not any(_beats(graph, held, item, objective, other) for held in found):
            found = [held for held in found if not _beats(graph, item, held, objective, other)]
            found.append(item)
    return tuple(found)


def _beats(graph: TaskGraph, one: Placement, two: Placement, *objectives: str) -> bool:
    """Whether one is as good as the other in every objective."""
    return all(achieved(graph, one.pieces, name) <= achieved(graph, two.pieces, name) * (1 + NEAR) for name in objectives)


def _by_structure(graph: TaskGraph, objective: str, seconds: float) -> Placement | None:
    if objective == "throughput":
        return fastest_stream(graph, seconds=seconds / 2)
    if objective == "latency":
        is_calls_and_hosts = [kind.count is None for kind in graph.kinds] == [False, True]
        return fastest_sample(graph, seconds=seconds) if is_calls_and_hosts else None
    if len(graph.kinds) == 2 and all(kind.count == 1 and objective in kind.amounts for kind in graph.kinds):
        return least_cut(graph, objective)[1]
    return None


def _check(graph: TaskGraph, names: Sequence[str]) -> None:
    known = ["latency", "throughput", *sorted({name for kind in graph.kinds for name in kind.amounts})]
    for name in names:
        if name not in known:
            raise PartitionError(f"objective {name!r} is not known, expected one of: {', '.join(known)}")
    place_of = {task: at for at, task in enumerate(graph.order)}
    if "latency" in names:
        for value in graph.values:
            if any(place_of[consumer] < place_of[value.producer] for consumer in value.consumers):
                raise PartitionError(
                    f"a value of task {value.producer} is read by a task before it, and latency was asked for",
                    hint="only throughput is known for values that run backwards",
                )


def _pinned(graph: TaskGraph, pins: Mapping[int, int]) -> TaskGraph:
    """The graph in which a pinned task is supported by its kind alone."""
    if not pins:
        return graph
    kinds = tuple(
        replace(
            kind,
            seconds=tuple(
                INFINITE if pins.get(task, number) != number else seconds for task, seconds in enumerate(kind.seconds)
            ),
        )
        for number, kind in enumerate(graph.kinds)
    )
    return replace(graph, kinds=kinds)
