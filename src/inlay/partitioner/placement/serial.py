"""Tasks that every path goes through, and what they say about latency from below.

A task that is ordered against every other one is never beside anything: whatever runs it, alone or in a piece, runs while all
else waits. So latency is a sum along these tasks, and what a piece pays for its ends is at least a minimum cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx

from inlay.partitioner.placement.graph import INFINITE, DeviceKind, TaskGraph


@dataclass(frozen=True)
class Apart:
    """Of a call that holds no task of the spine: seconds by task with what it surely moves for it; what each value may add
    where it is sent and received; and what the call still takes at least after each task."""

    seconds: tuple[float, ...]
    send: tuple[float, ...]
    receive: tuple[float, ...]
    leave: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Spine:
    """The tasks of a graph that are ordered against all others, in order; `place` is the rank of each task among them:
    how many of them come before it, itself not counted."""

    graph: TaskGraph

    @cached_property
    def tasks(self) -> tuple[int, ...]:
        """The spine itself."""
        graph = self.graph
        everything = (1 << graph.count) - 1
        later, earlier = self._reach(graph.successors, reversed(graph.order)), self._reach(graph.predecessors, graph.order)
        return tuple(task for task in graph.order if later[task] | earlier[task] == everything)

    def _reach(self, following: Sequence[Sequence[int]], order: Iterable[int]) -> list[int]:
        reach = [0] * self.graph.count
        for task in order:
            reach[task] = 1 << task
            for other in following[task]:
                reach[task] |= reach[other]
        return reach

    @cached_property
    def place(self) -> tuple[int, ...]:
        """By task, how many tasks of the spine must come before it."""
        graph, rank = self.graph, {task: number for number, task in enumerate(self.tasks)}
        found = [0] * graph.count
        for task in graph.order:
            before = [found[other] + (other in rank) for other in graph.predecessors[task]]
            found[task] = max(before, default=0)
        return tuple(found)

    @cached_property
    def segments(self) -> tuple[tuple[int, ...], ...]:
        """What lies strictly between: segment p comes before spine task p and after the one before that."""
        rank = set(self.tasks)
        found: list[list[int]] = [[] for _ in range(len(self.tasks) + 1)]
        for task in self.graph.order:
            if task not in rank:
                found[self.place[task]].append(task)
        return tuple(map(tuple, found))

    def apart(self, kind: DeviceKind) -> Apart:
        """What calls that hold no task of the spine take at least."""
        graph, spine = self.graph, set(self.tasks)
        seconds, send, receive = list(kind.seconds), list(kind.send), list(kind.receive)
        made: list[list[int]] = [[] for _ in range(graph.count)]
        for number, value in enumerate(graph.values):
            made[value.producer].append(number)
            where = self.place[value.producer]
            if value.producer not in spine and any(item in spine or self.place[item] != where for item in value.consumers):
                seconds[value.producer] += send[number]
                send[number] = 0.0
            for place in {self.place[item] for item in value.consumers}:
                readers = [item for item in value.consumers if self.place[item] == place and item not in spine]
                outside = value.producer in spine or where != place
                if outside and len(readers) == 1 and len(value.consumers) == 1:
                    seconds[readers[0]] += receive[number]
                    receive[number] = 0.0
        leave = [0.0] * graph.count
        for task in reversed(graph.order):
            for number in made[task]:
                readers = list(graph.values[number].consumers)
                follow = max(INFINITE if item in spine else seconds[item] + leave[item] for item in readers)
                leave[task] = max(leave[task], min(send[number], follow))
        return Apart(tuple(seconds), tuple(send), tuple(receive), tuple(leave))

    def least_stretch(self, number: int, call: DeviceKind, host: DeviceKind, apart: Apart) -> float:
        """What a whole segment takes at least, hosts and calls that hold no task of the spine working at it together."""
        inside, graph = set(self.segments[number]), self.graph
        beside, called, most = dict[int, float](), dict[int, float](), 0.0
        reads: dict[int, list[int]] = {task: [] for task in inside}
        for at, value in enumerate(graph.values):
            for consumer in value.consumers:
                if consumer in inside:
                    reads[consumer].append(at)
        for task in self.segments[number]:
            on_host, in_call = 0.0, 0.0
            for at in reads[task]:
                producer = graph.values[at].producer
                if producer not in inside:
                    in_call = max(in_call, apart.receive[at])
                    continue
                out = min(beside[producer], called[producer] + apart.send[at])
                on_host, together = max(on_host, out), out + apart.receive[at]
                if call.capacity is None or call.memory[task] + call.memory[producer] <= call.capacity:
                    together = min(together, called[producer])
                in_call = max(in_call, together)
            beside[task], called[task] = on_host + host.seconds[task], in_call + apart.seconds[task]
            most = max(most, min(beside[task], called[task] + apart.leave[task]))
        return most

    def least_receive(self, number: int, kind: DeviceKind) -> float:
        """What a piece that begins with this spine task, perhaps with some of the segment before it, receives at least."""
        if number == 0:
            return 0.0
        inside = {*self.segments[number], self.tasks[number]}
        cut = networkx.DiGraph()
        cut.add_nodes_from(("in", "out"))
        for at, value in enumerate(self.graph.values):
            readers = [consumer for consumer in value.consumers if consumer in inside]
            if readers:
                producer = value.producer if value.producer in inside else "out"
                cut.add_edge(("value", at), producer, capacity=kind.receive[at])
                for reader in readers:
                    cut.add_edge(reader, ("value", at))
        cut.add_edge("in", self.tasks[number])
        return _least_cut(cut)

    def least_send(self, number: int, kind: DeviceKind) -> float:
        """What a piece that ends with this spine task, perhaps with some of the segment after it, sends at least."""
        if number == len(self.tasks) - 1 and not self.segments[number + 1]:
            return 0.0
        inside = {*self.segments[number + 1], self.tasks[number]}
        cut = networkx.DiGraph()
        cut.add_nodes_from(("in", "out"))
        for at, value in enumerate(self.graph.values):
            if value.producer in inside:
                cut.add_edge(value.producer, ("value", at), capacity=kind.send[at])
                for reader in value.consumers:
                    cut.add_edge(("value", at), reader if reader in inside else "out")
        cut.add_edge("in", self.tasks[number])
        return 0.0 if number == len(self.tasks) - 1 else _least_cut(cut)


def _least_cut(cut: networkx.DiGraph) -> float:
    return float(networkx.minimum_cut_value(cut, "in", "out"))


def longest(graph: TaskGraph, seconds: Sequence[float], tasks: Sequence[int]) -> float:
    """The longest path through some tasks."""
    inside, end = set(tasks), dict[int, float]()
    for task in graph.order:
        if task in inside:
            end[task] = seconds[task] + max((end[other] for other in graph.predecessors[task] if other in end), default=0.0)
    return max(end.values(), default=0.0)
