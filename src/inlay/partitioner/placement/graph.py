"""A graph of tasks to be placed on devices of a few kinds, as numbers alone. Solved by this room, made by whoever has a graph.

Transfers go through memory that all devices reach: whoever makes a value pays once for sending it off its device, and every
device that reads it from elsewhere pays once for receiving it. A device runs one contiguous piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from inlay.errors import PartitionError

INFINITE = float("inf")


@dataclass(frozen=True)
class Amounts:
    """What something other than time (dollars, joules) comes to: by task, and by value where it is sent and received."""

    tasks: tuple[float, ...]
    send: tuple[float, ...]
    receive: tuple[float, ...]


@dataclass(frozen=True)
class DeviceKind:
    """`count` equal devices (None: as many as there are tasks), each with `capacity` bytes (None: enough).

    `seconds` and `memory` are by task, infinite seconds where it is not supported; `send` and `receive` by value. `amounts`
    are what may be minimised or limited beside time, by name, such as "cost" and "energy".
    """

    name: str
    count: int | None
    seconds: tuple[float, ...]
    memory: tuple[float, ...]
    send: tuple[float, ...]
    receive: tuple[float, ...]
    capacity: float | None = None
    amounts: Mapping[str, Amounts] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskValue:
    """What task `producer` makes and the tasks `consumers` read. It may run against the edges (a backward pass)."""

    producer: int
    consumers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TaskGraph:
    """Tasks 0 to `count` - 1, the `edges` that order them, the `values` that are moved, and the kinds of devices."""

    count: int
    edges: tuple[tuple[int, int], ...]
    values: tuple[TaskValue, ...]
    kinds: tuple[DeviceKind, ...]

    def __post_init__(self) -> None:
        for kind in self.kinds:
            lengths = {"seconds": self.count, "memory": self.count, "send": len(self.values), "receive": len(self.values)}
            for name, length in lengths.items():
                if len(getattr(kind, name)) != length:
                    raise PartitionError(f"kind {kind.name!r} has {len(getattr(kind, name))} {name}, expected {length}")
                for amount, held in kind.amounts.items():
                    given = getattr(held, "tasks" if name in ("seconds", "memory") else name)
                    if len(given) != length:
                        raise PartitionError(f"{amount} of kind {kind.name!r} has {len(given)} numbers, expected {length}")
        for one, other in self.edges:
            if not (0 <= one < self.count and 0 <= other < self.count):
                raise PartitionError(f"edge {one} -> {other} names a task that is not there, expected 0 to {self.count - 1}")

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """By task, those that an edge leads to, each once, in order."""
        found: list[set[int]] = [set() for _ in range(self.count)]
        for one, other in self.edges:
            if one != other:
                found[one].add(other)
        return tuple(tuple(sorted(held)) for held in found)

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """By task, those that an edge comes from, each once, in order."""
        found: list[list[int]] = [[] for _ in range(self.count)]
        for task, held in enumerate(self.successors):
            for other in held:
                found[other].append(task)
        return tuple(map(tuple, found))

    @cached_property
    def needs(self) -> tuple[tuple[int, ...], ...]:
        """By task, what must end before it can: its predecessors, and who makes a value that it reads."""
        found = [set(held) for held in self.predecessors]
        for value in self.values:
            for consumer in value.consumers:
                found[consumer].add(value.producer)
        return tuple(tuple(sorted(held)) for held in found)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The tasks in an order that obeys every edge, going deep first. Raises PartitionError where a cycle forbids one."""
        waiting = [len(held) for held in self.predecessors]
        ready = [task for task in reversed(range(self.count)) if waiting[task] == 0]
        order: list[int] = []
        while ready:
            task = ready.pop()
            order.append(task)
            for other in reversed(self.successors[task]):
                waiting[other] -= 1
                if waiting[other] == 0:
                    ready.append(other)
        if len(order) < self.count:
            stuck = [task for task in range(self.count) if waiting[task] > 0]
            raise PartitionError(f"tasks {stuck[:5]} lie on a cycle, expected a graph without one", hint="merge them into one")
        return tuple(order)


@dataclass(frozen=True)
class Piece:
    """What one device runs: the number of its kind, and its tasks, ascending."""

    kind: int
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Pieces that hold every task once, in an order that obeys every edge; its value, and what no placement can be below.

    `exact` says that the bound is proven to be the value; `method` how value and bound were found; `explored` how many
    partial placements were looked at.
    """

    pieces: tuple[Piece, ...]
    value: float
    bound: float
    method: str
    explored: int = 0

    @property
    def gap(self) -> float:
        """The share of the value that is not proven to be needed."""
        return (self.value - self.bound) / self.value if self.value > 0 else 0.0


def piece_load(graph: TaskGraph, kind: int, tasks: Sequence[int]) -> float:
    """Seconds that a device is busy with a piece: its tasks, what it receives and what it sends, nothing overlapped."""
    device = graph.kinds[kind]
    return _sum(graph, Amounts(device.seconds, device.send, device.receive), tasks)


def piece_amount(graph: TaskGraph, kind: int, tasks: Sequence[int], name: str) -> float:
    """What a piece comes to in dollars, joules or another named amount; nothing where its kind has none."""
    held = graph.kinds[kind].amounts.get(name)
    return 0.0 if held is None else _sum(graph, held, tasks)


def _sum(graph: TaskGraph, amounts: Amounts, tasks: Sequence[int]) -> float:
    held = set(tasks)
    total = sum(amounts.tasks[task] for task in tasks)
    for number, value in enumerate(graph.values):
        inside = sum(consumer in held for consumer in value.consumers)
        if value.producer in held:
            total += amounts.send[number] if inside < len(value.consumers) else 0.0
        elif inside:
            total += amounts.receive[number]
    return total


def busiest(graph: TaskGraph, pieces: Sequence[Piece]) -> float:
    """The load of the busiest device."""
    return max((piece_load(graph, piece.kind, piece.tasks) for piece in pieces), default=0.0)


def makespan(graph: TaskGraph, pieces: Sequence[Piece]) -> float:
    """When the last piece ends: each waits for all that its tasks need and gives nothing before its end.

    On a kind without a number of devices every task is a piece of its own.
    """
    end = [0.0] * graph.count
    for piece in pieces:
        for tasks in [piece.tasks] if graph.kinds[piece.kind].count is not None else [[t] for t in _sorted(graph, piece)]:
            held = set(tasks)
            start = max((end[other] for task in held for other in graph.needs[task] if other not in held), default=0.0)
            load = piece_load(graph, piece.kind, tasks)
            for task in held:
                end[task] = start + load
    return max(end, default=0.0)


def _sorted(graph: TaskGraph, piece: Piece) -> list[int]:
    held = set(piece.tasks)
    return [task for task in graph.order if task in held]


def achieved(graph: TaskGraph, pieces: Sequence[Piece], objective: str) -> float:
    """The value of an objective: "latency", "throughput" (the load of the busiest device), or the name of an amount."""
    if objective == "latency":
        return makespan(graph, pieces)
    if objective == "throughput":
        return busiest(graph, pieces)
    return sum(piece_amount(graph, piece.kind, piece.tasks, objective) for piece in pieces)


def check_placement(graph: TaskGraph, pieces: Sequence[Piece]) -> None:
    """Raise PartitionError unless every task is placed once, the order obeys every edge, devices suffice and memory fits."""
    at: dict[int, int] = {}
    used = [0] * len(graph.kinds)
    for number, piece in enumerate(pieces):
        kind = graph.kinds[piece.kind]
        used[piece.kind] += 1
        memory = sum(kind.memory[task] for task in piece.tasks)
        if kind.capacity is not None and memory > kind.capacity:
            raise PartitionError(f"piece {number} needs {memory:g} bytes but a device {kind.name!r} has {kind.capacity:g}")
        for task in piece.tasks:
            if task in at:
                raise PartitionError(f"task {task} is in pieces {at[task]} and {number}, expected in one")
            if kind.seconds[task] == INFINITE:
                raise PartitionError(f"task {task} is placed on {kind.name!r}, which does not support it")
            at[task] = number
    if len(at) < graph.count:
        missing = [task for task in range(graph.count) if task not in at]
        raise PartitionError(f"tasks {missing[:5]} are in no piece, expected each in one")
    for one, other in graph.edges:
        if at[one] > at[other]:
            raise PartitionError(
                f"task {other} in piece {at[other]} comes before task {one} in piece {at[one]}, which it needs"
            )
    for kind, count in zip(graph.kinds, used, strict=True):
        if kind.count is not None and count > kind.count:
            raise PartitionError(f"{count} devices {kind.name!r} are used, expected at most {kind.count}")
