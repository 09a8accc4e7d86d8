"""Makes a task graph smaller without losing an optimum: tasks that cost nothing join a neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inlay.partitioner.placement.graph import DeviceKind, Piece, TaskGraph, TaskValue


@dataclass(frozen=True)
class Contraction:
    """A smaller graph, and for each of its tasks the tasks of the first one that it stands for."""

    graph: TaskGraph
    members: tuple[tuple[int, ...], ...]

    def expand(self, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
        """Pieces of the small graph as pieces of the first one."""
        return tuple(
            Piece(piece.kind, tuple(sorted(member for task in piece.tasks for member in self.members[task])))
            for piece in pieces
        )


def contract(graph: TaskGraph) -> Contraction:
    """Merge tasks without cost into a neighbour, as long as some optimum surely has them there.

    Exact: in each case, whatever a placement does with such a task, moving it to that neighbour breaks no order and makes
    no device pay more.
    """
    current = Contraction(_without_needless_memory(graph), tuple((task,) for task in range(graph.count)))
    while True:
        group = _group(current.graph)
        if group is None:
            return current
        smaller = merged(current.graph, group)
        held = tuple(tuple(item for task in tasks for item in current.members[task]) for tasks in smaller.members)
        current = Contraction(smaller.graph, held)


def _without_needless_memory(graph: TaskGraph) -> TaskGraph:
    """The same graph without the memory of kinds that have room for everything."""
    return replace(graph, kinds=tuple(_without_memory(kind) for kind in graph.kinds))


def _without_memory(kind: DeviceKind) -> DeviceKind:
    if kind.capacity is not None and sum(kind.memory) > kind.capacity:
        return kind
    return replace(kind, memory=(0.0,) * len(kind.memory), capacity=None)


def _group(graph: TaskGraph) -> list[int] | None:
    """For each task the task that it becomes one with in this round; None where there is nothing to merge."""
    ties = _Ties(graph)
    group, touched, merges = list(range(graph.count)), [False] * graph.count, 0
    for task in range(graph.count):
        target = ties.target(task)
        if target is None or touched[task] or any(touched[item] for item in ties.neighbours[task]) or touched[target]:
            continue
        group[task] = target
        touched[task] = touched[target] = True
        merges += 1
    return group if merges else None


class _Ties:
    """What connects each task with others."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.neighbours = _neighbours(graph)
        self.made: list[list[int]] = [[] for _ in range(graph.count)]
        self.read: list[list[int]] = [[] for _ in range(graph.count)]
        self.backward = [False] * graph.count
        order = {task: at for at, task in enumerate(graph.order)}
        for number, value in enumerate(graph.values):
            self.made[value.producer].append(number)
            for consumer in value.consumers:
                self.read[consumer].append(number)
                if order[consumer] < order[value.producer]:
                    self.backward[consumer] = self.backward[value.producer] = True

    def target(self, task: int) -> int | None:
        """The neighbour that a task without cost may be merged into, if there is one."""
        graph = self.graph
        if not all(kind.seconds[task] == 0.0 and kind.memory[task] == 0.0 for kind in graph.kinds):
            return None
        if len(self.neighbours[task]) == 1:
            return next(iter(self.neighbours[task]))
        if self.backward[task]:
            return None
        made, read = self.made[task], self.read[task]
        if len(graph.successors[task]) == 1 and self._costs_no_more(read, made):
            return graph.successors[task][0]
        if len(graph.predecessors[task]) == 1:
            alone = all(graph.values[number].consumers == (task,) for number in read)
            if self._costs_no_more(made, []) or (alone and self._costs_no_more(made, read)):
                return graph.predecessors[task][0]
        return None

    def _costs_no_more(self, some: Sequence[int], others: Sequence[int]) -> bool:
        """Whether moving some values costs at most what moving others does, at each end and for every kind."""
        return all(
            sum(costs[number] for number in some) <= sum(costs[number] for number in others)
            for kind in self.graph.kinds
            for costs in (kind.send, kind.receive)
        )


@dataclass(frozen=True)
class Leafless:
    """A contraction in which tasks that nothing waits for are one with what they follow: with their memory (`held`), and, for
    bounds, the same graph without it (`free`)."""

    held: Contraction
    free: TaskGraph


def without_leaves(small: Contraction) -> Leafless:
    """Merge tasks that take no time anywhere and have no successor into their only predecessor.

    Not exact: such a task could be elsewhere, where memory is short. `free` is never worse than any placement of it.
    """
    graph = small.graph
    group, plain = list(range(graph.count)), [list(kind.memory) for kind in graph.kinds]
    for task in range(graph.count):
        idle = all(kind.seconds[task] == 0.0 for kind in graph.kinds)
        if idle and not graph.successors[task] and len(graph.predecessors[task]) == 1:
            group[task] = graph.predecessors[task][0]
            for memory in plain:
                memory[task] = 0.0
    inner = merged(graph, group)
    members = tuple(tuple(item for task in held for item in small.members[task]) for held in inner.members)
    kinds = tuple(replace(kind, memory=tuple(memory)) for kind, memory in zip(graph.kinds, plain, strict=True))
    return Leafless(Contraction(inner.graph, members), merged(replace(graph, kinds=kinds), group).graph)


def merged(graph: TaskGraph, group: Sequence[int]) -> Contraction:
    """The graph in which tasks of one group are one task, of time and memory alone. Groups must be closed under paths."""
    roots = sorted(set(group))
    number = {root: at for at, root in enumerate(roots)}
    members: list[list[int]] = [[] for _ in roots]
    for task, root in enumerate(group):
        members[number[root]].append(task)
    of = [number[root] for root in group]
    values, kept = [], []
    for at, value in enumerate(graph.values):
        producer = of[value.producer]
        consumers = sorted({of[consumer] for consumer in value.consumers} - {producer})
        if consumers:
            values.append(TaskValue(producer, tuple(consumers)))
            kept.append(at)
    kinds = tuple(
        replace(
            kind,
            seconds=tuple(sum(kind.seconds[task] for task in held) for held in members),
            memory=tuple(sum(kind.memory[task] for task in held) for held in members),
            send=tuple(kind.send[at] for at in kept),
            receive=tuple(kind.receive[at] for at in kept),
            amounts={},
        )
        for kind in graph.kinds
    )
    edges = {(of[one], of[other]) for one, other in graph.edges if of[one] != of[other]}
    return Contraction(TaskGraph(len(roots), tuple(sorted(edges)), tuple(values), kinds), tuple(map(tuple, members)))


def _neighbours(graph: TaskGraph) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(graph.count)]
    pairs = [*graph.edges, *((value.producer, consumer) for value in graph.values for consumer in value.consumers)]
    for one, other in pairs:
        if one != other:
            found[one].add(other)
            found[other].add(one)
    return found
