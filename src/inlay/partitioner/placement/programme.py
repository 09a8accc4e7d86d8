"""The placement as a mixed-integer programme for HiGHS: any objective, any budgets, at most one piece a device.

Pieces stand in a row; an edge never leads backwards in it, which keeps every piece convex and the whole without a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import highspy

from inlay.partitioner.placement.graph import INFINITE, Piece, Placement, TaskGraph, achieved
from inlay.partitioner.placement.solver import Solver

ROUNDING = 1e-6
"""The tolerance of the solver, as a share: a smaller gap is none."""


@dataclass(eq=False)
class Programme:
    """Made for one graph and objective; `within` are budgets by objective. `seconds` is the time given to the solver."""

    graph: TaskGraph
    objective: str
    within: Mapping[str, float]
    pins: Mapping[int, int]
    seconds: float
    _solver: Any = field(init=False)
    _zero: Any = field(init=False)

    def solve(self, start: Placement | None = None) -> Placement | None:
        """The best placement; None where none keeps the budgets. `start` is one that is known."""
        graph = self.graph
        self._solver = Solver()
        self._solver.setOptionValue("time_limit", self.seconds)
        self._solver.setOptionValue("mip_rel_gap", 1e-9)
        self._solver.setOptionValue("mip_abs_gap", 0.0)
        self._solver.setOptionValue("mip_abs_gap", 1e-12)
        counts = [graph.count if kind.count is None else kind.count for kind in graph.kinds]
        self.rows = min(sum(counts), graph.count)
        self._place(counts)
        self._move()
        objectives = {name: self._value(name) for name in {self.objective, *self.within}}
        for name, most in self.within.items():
            self._solver.addConstr(objectives[name] <= most)
        self._solver.setObjective(objectives[self.objective], highspy.ObjSense.kMinimize)
        if start is not None:
            self._begin_with(start)
        self._solver.run()
        return self._answer()

    def _binary(self) -> Any:
        return self._solver.addBinary()

    def _place(self, counts: Sequence[int]) -> None:
        """Every task in one row, every row on at most one kind, edges forward, memory, devices and pins."""
        graph, solver = self.graph, self._solver
        kinds = range(len(graph.kinds))
        self.on = [[self._binary() for _ in kinds] for _ in range(self.rows)]
        self.at = [[[self._binary() for _ in kinds] for _ in range(self.rows)] for _ in range(graph.count)]
        self.row = [[sum(self.at[task][row]) for row in range(self.rows)] for task in range(graph.count)]
        for row in range(self.rows):
            solver.addConstr(sum(self.on[row]) <= 1)
            if row:
                solver.addConstr(sum(self.on[row - 1]) >= sum(self.on[row]))
            for kind in kinds:
                held = graph.kinds[kind]
                for task in range(graph.count):
                    solver.addConstr(self.at[task][row][kind] <= self.on[row][kind])
                if held.capacity is not None:
                    size = sum(held.memory[task] * self.at[task][row][kind] for task in range(graph.count))
                    solver.addConstr(size <= held.capacity)
        for kind in kinds:
            solver.addConstr(sum(self.on[row][kind] for row in range(self.rows)) <= counts[kind])
        for task in range(graph.count):
            solver.addConstr(sum(self.row[task]) == 1)
            for kind in kinds:
                if graph.kinds[kind].seconds[task] == INFINITE or self.pins.get(task, kind) != kind:
                    solver.addConstr(sum(self.at[task][row][kind] for row in range(self.rows)) == 0)
        for one, other in graph.edges:
            for row in range(self.rows - 1):  # whatever is placed up to here, so is all that it needs
                early = [sum(self.row[task][: row + 1]) for task in (one, other)]
                solver.addConstr(early[0] >= early[1])

    def _move(self) -> None:
        """Whether the device of a row sends and receives each value, by kind."""
        graph, solver = self.graph, self._solver
        kinds, rows = range(len(graph.kinds)), range(self.rows)
        self.sends = [[[solver.addVariable(lb=0, ub=1) for _ in kinds] for _ in rows] for _ in graph.values]
        self.receives = [[[solver.addVariable(lb=0, ub=1) for _ in kinds] for _ in rows] for _ in graph.values]
        for number, value in enumerate(graph.values):
            for row in rows:
                for kind in kinds:
                    for consumer in value.consumers:
                        made, read = self.at[value.producer][row][kind], self.at[consumer][row][kind]
                        solver.addConstr(self.sends[number][row][kind] >= made - self.row[consumer][row])
                        solver.addConstr(self.receives[number][row][kind] >= read - self.row[value.producer][row])

    def _total(self, row: int, name: str) -> Any:
        """The seconds, or another amount, of a row."""
        graph, terms = self.graph, []
        for number, kind in enumerate(graph.kinds):
            held = kind if name == "seconds" else kind.amounts.get(name)
            if held is None:
                continue
            tasks = kind.seconds if name == "seconds" else kind.amounts[name].tasks
            terms += [tasks[task] * self.at[task][row][number] for task in range(graph.count) if kind.seconds[task] < INFINITE]
            terms += [held.send[at] * self.sends[at][row][number] for at in range(len(graph.values))]
            terms += [held.receive[at] * self.receives[at][row][number] for at in range(len(graph.values))]
        return sum(terms) + 0.0 * self.on[row][0]

    def _value(self, objective: str) -> Any:
        solver, rows = self._solver, range(self.rows)
        if objective not in ("latency", "throughput"):
            return sum(self._total(row, objective) for row in rows)
        most = solver.addVariable(lb=0)
        loads = [self._total(row, "seconds") for row in rows]
        if objective == "throughput":
            for load in loads:
                solver.addConstr(most >= load)
            return most
        self._end(loads, most)
        return most

    def _end(self, loads: Sequence[Any], most: Any) -> None:
        """When each row ends: after its load, begun when the rows that it needs have ended."""
        graph, solver, rows = self.graph, self._solver, range(self.rows)
        bound = sum(max(seconds for seconds in column if seconds < INFINITE) for column in self._columns())
        end = [solver.addVariable(lb=0, ub=bound) for _ in rows]
        for later in rows:
            solver.addConstr(end[later] >= loads[later])
            solver.addConstr(most >= end[later])
            for earlier in range(later):
                needed = solver.addVariable(lb=0, ub=1)
                for task in range(graph.count):
                    for other in graph.needs[task]:
                        solver.addConstr(needed >= self.row[other][earlier] + self.row[task][later] - 1)
                solver.addConstr(end[later] >= end[earlier] + loads[later] - 2 * bound * (1 - needed))

    def _columns(self) -> list[list[float]]:
        """For each task and value, what it takes by kind: their greatest ones together are more than any schedule takes."""
        graph = self.graph
        tasks = [[kind.seconds[task] for kind in graph.kinds] for task in range(graph.count)]
        ends = [
            [costs[number] * (1 + len(value.consumers)) for kind in graph.kinds for costs in (kind.send, kind.receive)]
            for number, value in enumerate(graph.values)
        ]
        return [*tasks, *ends]

    def _begin_with(self, start: Placement) -> None:
        solution = highspy.HighsSolution()
        values = [0.0] * self._solver.getNumCol()
        for row, piece in enumerate(start.pieces):
            values[self.on[row][piece.kind].index] = 1.0
            for task in piece.tasks:
                values[self.at[task][row][piece.kind].index] = 1.0
        solution.col_value = values
        self._solver.setSolution(solution)

    def _answer(self) -> Placement | None:
        info, found = self._solver.getInfo(), self._solver.getSolution().col_value
        if info.primal_solution_status != 2:  # feasible
            return None
        pieces = []
        for row in range(self.rows):
            for kind in range(len(self.graph.kinds)):
                tasks = tuple(task for task in range(self.graph.count) if found[self.at[task][row][kind].index] > 0.5)
                if tasks:
                    pieces.append(Piece(kind, tasks))
        value = achieved(self.graph, pieces, self.objective)
        bound = min(value, max(info.mip_dual_bound, 0.0))
        if value - bound <= ROUNDING * abs(value):
            bound = value
        method = f"mixed-integer programme, HiGHS, {info.mip_node_count} nodes"
        return Placement(tuple(pieces), value, bound, method, int(info.mip_node_count))
