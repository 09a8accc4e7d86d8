"""Exact search for the cheapest ways through a chain, with their proof.

A dynamic programme over (end of the last step, its place, which devices hold each live value), kept as labels with the
memory used so far, explored in the order of cost so far plus a bound from below on the rest (`remaining`, `rents`). The
first plans to arrive are then the best ones, and the first of them is the optimum of this table of costs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from inlay.partitioner.problem import Plan, Problem, Step, plan_seconds
from inlay.partitioner.remaining import INFINITE, Remaining
from inlay.partitioner.rents import rent, rented
from inlay.partitioner.symmetry import equal_devices

LABEL_LIMIT = 400_000
"""So many labels are made before the proof is given up."""
DIVE_LIMIT = 50_000
"""So many more, at least, to find any plan then."""

Holding = tuple[int, int]
"""The device that made a value, and as bits the devices that hold it."""


@dataclass(frozen=True)
class Solution:
    """The best plans in order (fewer where there are not so many), what no plan can be below, and whether that is proven."""

    plans: tuple[Plan, ...]
    bound: float
    exact: bool
    labels: int


@dataclass(frozen=True)
class _Label:
    seconds: float
    steps: int
    last: Step | None
    before: _Label | None
    holdings: tuple[Holding, ...]
    used: tuple[int, ...]
    memory: tuple[int, ...]


def solve(problem: Problem, *, plans: int = 1, limit: int = LABEL_LIMIT) -> Solution:
    """The `plans` cheapest plans that fit, each once; equal devices count as one. No plan at all where none fits.

    After `limit` labels the proof is given up: the search dives for a plan, and the bound is what was proven until then.
    """
    return _Search(problem, plans, limit).run()


class _Search:
    def __init__(self, problem: Problem, plans: int, limit: int) -> None:
        self.problem, self.plans, self.limit = problem, plans, limit
        self.remaining = Remaining(problem)
        self.groups = equal_devices(problem)
        self.group_of = {device: (group, rank) for group, held in enumerate(self.groups) for rank, device in enumerate(held)}
        self.tracked = _tracked(problem)
        found = rented(problem, self.tracked)
        self.rates, self.rented = found or ({}, self.remaining)
        self.rent = rent(problem, self.rates)
        self.closed: dict[tuple[object, ...], list[tuple[float, tuple[int, ...]]]] = {}
        self.made = 0

    def run(self) -> Solution:
        start = _Label(0.0, 0, None, None, (), (0,) * len(self.groups), (0,) * len(self.tracked))
        first = self.remaining.after(0, None)
        heap: list[tuple[float, int, int, _Label]] = [(first, 0, 0, start)] if first < INFINITE else []
        found: list[Plan] = []
        while heap and len(found) < self.plans and self.made < self.limit:
            _, _, _, label = heapq.heappop(heap)
            if label.last is not None and label.last.end == self.problem.count:
                found.append(self._plan(label))
            elif self._keep(label):
                for child, total in self._children(label):
                    self.made += 1
                    heapq.heappush(heap, (total, child.steps, self.made, child))
        if found or not heap:
            return Solution(tuple(found), found[0].seconds if found else INFINITE, True, self.made)
        bound, dived = heap[0][0], self._dive(heap)
        return Solution(tuple(dived), min([bound, *(plan.seconds for plan in dived)]), False, self.made)

    def _dive(self, heap: list[tuple[float, int, int, _Label]]) -> list[Plan]:
        """Go for the end of the chain, cheapest first among those that are furthest."""
        deep = [(-(label.last.end if label.last else 0), estimate, serial, label) for estimate, _, serial, label in heap]
        heapq.heapify(deep)
        until = self.made + max(self.limit, DIVE_LIMIT)
        while deep and self.made < until:
            _, _, _, label = heapq.heappop(deep)
            if label.last is not None and label.last.end == self.problem.count:
                return [self._plan(label)]
            for child, total in self._children(label):
                self.made += 1
                heapq.heappush(deep, (-(child.last.end if child.last else 0), total, self.made, child))
        return []

    def _keep(self, label: _Label) -> bool:
        """Whether a label may still lead to one of the plans wanted: fewer than that many are as good in every respect."""
        last = label.last
        key = (last and (last.end, last.place, last.fused), label.holdings, label.used)
        better = self.closed.setdefault(key, [])
        worse = sum(
            seconds <= label.seconds and all(a <= b for a, b in zip(memory, label.memory, strict=True))
            for seconds, memory in better
        )
        if worse >= self.plans:
            return False
        better.append((label.seconds, label.memory))
        return True

    def _bound(self, label: _Label, last: Step) -> float:
        """What no plan that begins so can be below: the cost so far and the rest, or the same with memory paid for."""
        free = label.seconds + self.remaining.after(last.end, last)
        if not self.rates or free == INFINITE:
            return free
        paid = sum(self.rates[device] * size for device, size in zip(self.tracked, label.memory, strict=True))
        return max(free, label.seconds + paid + self.rented.after(last.end, last) - self.rent)

    def _children(self, label: _Label) -> Iterator[tuple[_Label, float]]:
        """Every step that may follow, with the cost so far and the bound on the whole."""
        problem, last = self.problem, label.last
        at = last.end if last else 0
        for step in problem.steps[at] if at < problem.count else ():
            device = problem.device_of[step.place]
            if last is not None and last.place == step.place and not last.fused and not step.fused:
                continue  # that is one longer region, and it has its own price
            if self.remaining.after(step.end, step) == INFINITE:
                continue
            used = self._used(label.used, device)
            memory = self._memory(label.memory, device, step.memory)
            if used is None or memory is None:
                continue
            moved, holdings = self._holdings(label, step, device)
            if last is not None and problem.device_of[last.place] == device:
                moved += problem.handover(device)
            seconds = label.seconds + step.seconds + moved
            child = _Label(seconds, label.steps + 1, step, label, holdings, used, memory)
            yield child, self._bound(child, step)

    def _used(self, used: tuple[int, ...], device: int) -> tuple[int, ...] | None:
        """How many of each group of equal devices are in use; None where an earlier one of the group is still free."""
        if device not in self.group_of:
            return used
        group, rank = self.group_of[device]
        if rank > used[group]:
            return None
        return (*used[:group], max(used[group], rank + 1), *used[group + 1 :])

    def _memory(self, memory: tuple[int, ...], device: int, needed: int) -> tuple[int, ...] | None:
        """Memory in use on the devices that could overflow; None where this one does."""
        capacity = self.problem.capacity(device)
        if device not in self.tracked:
            return memory
        number = self.tracked.index(device)
        now = memory[number] + needed
        return None if capacity is not None and now > capacity else (*memory[:number], now, *memory[number + 1 :])

    def _holdings(self, label: _Label, step: Step, device: int) -> tuple[float, tuple[Holding, ...]]:
        """Seconds of the moves that a step needs, and who holds what is still to be read after it."""
        problem = self.problem
        held = dict(zip(problem.live[step.first], label.holdings, strict=True))
        moved = 0.0
        for value in problem.needs(step.first, step.end):
            maker, holders = held[value]
            if not holders >> device & 1:
                moved += problem.move(value, maker, device)
                held[value] = (maker, holders | 1 << device)
        fresh = (device, 1 << device)
        return moved, tuple(held.get(value, fresh) for value in problem.live[step.end])

    def _plan(self, label: _Label) -> Plan:
        steps: list[Step] = []
        at: _Label | None = label
        while at is not None and at.last is not None:
            steps.append(at.last)
            at = at.before
        steps.reverse()
        return Plan(plan_seconds(self.problem, steps), tuple(steps))


def _tracked(problem: Problem) -> tuple[int, ...]:
    """Devices whose memory could be too small: some plan takes more than they have."""
    found = []
    for device in range(len(problem.devices)):
        capacity = problem.capacity(device)
        most = [0] * (problem.count + 1)
        for at in range(problem.count - 1, -1, -1):
            here = (step for step in problem.steps[at] if problem.device_of[step.place] == device)
            most[at] = max([most[at + 1], *(step.memory + most[step.end] for step in here)])
        if capacity is not None and most[0] > capacity:
            found.append(device)
    return tuple(found)
