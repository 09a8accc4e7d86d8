"""Random task graphs, and their best placements by trying all of them."""

from __future__ import annotations

import itertools
import random

from inlay.errors import PartitionError
from inlay.partitioner.placement.graph import Amounts, DeviceKind, Piece, TaskGraph, TaskValue, achieved, check_placement

INFINITE = float("inf")


def random_graph(seed: int, *, tasks: int, counts: tuple[int, ...], tight: bool = False, holes: bool = False) -> TaskGraph:
    """A graph with so many devices of each of some unlike kinds; `tight` memory, `holes` in what is supported."""
    chance = random.Random(seed)
    edges, readers = [], {}
    for task in range(1, tasks):
        for other in chance.sample(range(task), min(task, chance.choice((1, 1, 2, 3)))):
            if chance.random() < 0.85:
                edges.append((other, task))
                if chance.random() < 0.9:
                    readers.setdefault(other, []).append(task)
    values = tuple(TaskValue(producer, tuple(consumers)) for producer, consumers in sorted(readers.items()))

    def amounts(most: float) -> tuple[tuple[float, ...], ...]:
        return (
            tuple(chance.choice((0.0, chance.uniform(0, most), most)) for _ in range(tasks)),
            tuple(chance.uniform(0, most / 3) for _ in values),
            tuple(chance.uniform(0, most / 3) for _ in values),
        )

    memory = tuple(float(chance.randint(0, 9)) for _ in range(tasks))
    kinds = []
    for number, count in enumerate(counts):
        seconds, send, receive = amounts(4.0)
        if holes and number:
            seconds = tuple(INFINITE if chance.random() < 0.25 else item for item in seconds)
        capacity = max(max(memory), sum(memory) * chance.uniform(0.4, 0.9)) if tight else None
        named = {name: Amounts(*amounts(4.0)) for name in ("cost", "energy")}
        kinds.append(DeviceKind(f"kind{number}", count, seconds, memory, send, receive, capacity, named))
    return TaskGraph(tasks, tuple(edges), values, tuple(kinds))


def every_placement(graph: TaskGraph) -> list[tuple[Piece, ...]]:
    """All placements, one piece a device, by trying every assignment of tasks to devices and every order of pieces."""
    devices = [number for number, kind in enumerate(graph.kinds) for _ in range(kind.count or 0)]
    found = []
    for where in itertools.product(range(len(devices)), repeat=graph.count):
        groups = [tuple(task for task in range(graph.count) if where[task] == device) for device in range(len(devices))]
        pieces = [Piece(devices[device], group) for device, group in enumerate(groups) if group]
        if any(graph.kinds[devices[device]].seconds[task] == INFINITE for task, device in enumerate(where)):
            continue
        ordered = in_order(graph, pieces)
        if ordered is None:
            continue
        try:
            check_placement(graph, ordered)
        except PartitionError:
            continue
        found.append(ordered)
    return found


def in_order(graph: TaskGraph, pieces: list[Piece]) -> tuple[Piece, ...] | None:
    """The pieces so that no edge leads backwards; None where they form a cycle."""
    at = {task: number for number, piece in enumerate(pieces) for task in piece.tasks}
    needs = [
        {at[one] for one, other in graph.edges if at[other] == number and at[one] != number} for number in range(len(pieces))
    ]
    order: list[int] = []
    while len(order) < len(pieces):
        ready = [number for number in range(len(pieces)) if number not in order and needs[number] <= set(order)]
        if not ready:
            return None
        order.append(ready[0])
    return tuple(pieces[number] for number in order)


def best_value(graph: TaskGraph, placements: list[tuple[Piece, ...]], objective: str, **within: float) -> float:
    """The least value of an objective within budgets."""
    allowed = [item for item in placements if all(achieved(graph, item, name) <= most for name, most in within.items())]
    return min((achieved(graph, item, objective) for item in allowed), default=INFINITE)
