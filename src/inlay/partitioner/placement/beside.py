"""Calls and hosts side by side within one segment: a small mixed-integer programme, for the few segments that a plan needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highspy

from inlay.partitioner.placement.graph import INFINITE, Piece, TaskGraph
from inlay.partitioner.placement.solver import Solver

CALL, HOST = 0, 1


def beside(graph: TaskGraph, tasks: Sequence[int], calls: int, *, seconds: float) -> tuple[float, tuple[Piece, ...]] | None:
    """The best way that was found to run some tasks with so many calls and any number of hosts, all that they need from
    elsewhere being there at once: how long it takes, and its pieces in the order of their starts. None in want of time."""
    return _Segment(graph, tasks, calls, seconds).solve()


class _Segment:
    def __init__(self, graph: TaskGraph, tasks: Sequence[int], calls: int, seconds: float) -> None:
        self.graph, self.tasks, self.calls = graph, list(tasks), range(calls)
        self.inside = set(tasks)
        self.solver: Any = Solver()
        self.solver.setOptionValue("time_limit", seconds)
        host = graph.kinds[HOST].seconds
        self.far = sum(host[task] for task in tasks)
        self.on = {task: [self.solver.addBinary() for _ in self.calls] for task in tasks}
        self.hosted = {task: 1 - sum(self.on[task]) for task in tasks}
        self.end = {task: self.solver.addVariable(lb=0, ub=self.far) for task in tasks}
        self.begin = [self.solver.addVariable(lb=0, ub=self.far) for _ in self.calls]

    def solve(self) -> tuple[float, tuple[Piece, ...]] | None:
        solver, call, host = self.solver, self.graph.kinds[CALL], self.graph.kinds[HOST]
        last = solver.addVariable(lb=0)
        loads = [self._load(number) for number in self.calls]
        for task in self.tasks:
            solver.addConstr(sum(self.on[task]) <= (1 if call.seconds[task] < INFINITE else 0))
            solver.addConstr(last >= self.end[task])
            solver.addConstr(self.end[task] >= host.seconds[task] * self.hosted[task])
            for number in self.calls:
                absent = 1 - self.on[task][number]
                solver.addConstr(self.end[task] >= self.begin[number] + loads[number] - 2 * self.far * absent)
            for other in self.graph.needs[task]:
                if other in self.inside:
                    self._after(task, other, host.seconds[task])
        for number in self.calls:
            if call.capacity is not None:
                size = sum(call.memory[task] / call.capacity * self.on[task][number] for task in self.tasks)
                solver.addConstr(size <= 1)
            if number:  # equal devices in one order
                solver.addConstr(self.begin[number] >= self.begin[number - 1])
        solver.setObjective(1.0 * last, highspy.ObjSense.kMinimize)
        solver.run()
        if solver.getInfo().primal_solution_status != 2:  # feasible
            return None
        return self._answer(last)

    def _after(self, task: int, other: int, seconds: float) -> None:
        """A host waits for what a task needs; so does a call, unless it holds that itself."""
        far = 2 * self.far
        self.solver.addConstr(self.end[task] >= self.end[other] + seconds - far * (1 - self.hosted[task]))
        for number in self.calls:
            apart = self.on[task][number] - self.on[other][number]
            self.solver.addConstr(self.begin[number] >= self.end[other] - far * (1 - apart))

    def _load(self, number: int) -> Any:
        call, solver = self.graph.kinds[CALL], self.solver
        terms = [call.seconds[task] * self.on[task][number] for task in self.tasks if call.seconds[task] < INFINITE]
        for at, value in enumerate(self.graph.values):
            readers = [item for item in value.consumers if item in self.inside]
            made = self.on[value.producer][number] if value.producer in self.inside else None
            if made is not None:
                sent = solver.addVariable(lb=0, ub=1)
                for item in value.consumers:
                    solver.addConstr(sent >= made - (self.on[item][number] if item in self.inside else 0))
                terms.append(call.send[at] * sent)
            if readers:
                received = solver.addVariable(lb=0, ub=1)
                for item in readers:
                    solver.addConstr(received >= self.on[item][number] - (0 if made is None else made))
                terms.append(call.receive[at] * received)
        return sum(terms)

    def _answer(self, last: Any) -> tuple[float, tuple[Piece, ...]]:
        found = self.solver.getSolution().col_value
        starts: list[tuple[float, int, Piece]] = []
        order = {task: at for at, task in enumerate(self.graph.order)}
        host = self.graph.kinds[HOST].seconds
        for number in self.calls:
            held = tuple(task for task in self.tasks if found[self.on[task][number].index] > 0.5)
            if held:
                starts.append((found[self.begin[number].index], min(order[task] for task in held), Piece(CALL, held)))
        for task in self.tasks:
            if all(found[item.index] < 0.5 for item in self.on[task]):
                starts.append((found[self.end[task].index] - host[task], order[task], Piece(HOST, (task,))))
        return found[last.index], tuple(piece for _, _, piece in sorted(starts, key=lambda item: item[:2]))
