"""The chain as a mixed-integer programme for HiGHS, for the objectives and budgets that the search by labels does not know.

A plan is a path along the chain, a step being an arc from its first block to its end; everything else hangs on which arcs are
taken. That makes its relaxation tight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import highspy

from inlay.partitioner.placement.solver import Solver
from inlay.partitioner.problem import Plan, Problem, Step, value_of
from inlay.partitioner.remaining import INFINITE
from inlay.partitioner.solve import Solution
from inlay.specs.goal import Goal

ROUNDING = 1e-6
SECONDS = 60.0


def solve_programme(problem: Problem, goal: Goal, *, seconds: float = SECONDS) -> Solution:
    """The best plan for a goal with its bound; no plan where none keeps the budgets. Never longer than `seconds`."""
    return _Programme(problem, goal, seconds).solve()


@dataclass(eq=False)
class _Programme:
    problem: Problem
    goal: Goal
    seconds: float
    _solver: Any = field(init=False, default_factory=Solver)

    def solve(self) -> Solution:
        steps = [step for held in self.problem.steps for step in held]
        self.scale = max((step.seconds for step in steps), default=0.0) or 1.0
        self._solver.setOptionValue("time_limit", self.seconds)
        self._solver.setOptionValue("mip_rel_gap", ROUNDING / 10)
        self._solver.setOptionValue("mip_abs_gap", 0.0)  # by default it stops at 1e-6 of whatever the values are
        self._solver.setOptionValue("mip_feasibility_tolerance", 1e-9)
        self.taken = [(step, self._solver.addBinary()) for step in steps]
        if not self._path():
            return Solution((), INFINITE, True, 0)
        self._on_devices()
        self._memory()
        if "throughput" in (self.goal.objective, *self.goal.within):
            self._one_stretch()
        self.loads = [self._load(device) for device in range(len(self.problem.devices))]
        for name, most in self.goal.within.items():
            self._keep(name, most)
        self._minimize()
        self._solver.run()
        return self._answer()

    def _path(self) -> bool:
        """One way through; two neighbours at one place that are not lowered whole would be one longer step."""
        problem, solver = self.problem, self._solver
        for at in range(problem.count + 1):
            leaving = [variable for step, variable in self.taken if step.first == at]
            arriving = [variable for step, variable in self.taken if step.end == at]
            if (at == 0 and not leaving) or (at == problem.count and not arriving):
                return False
            if at == 0 or at == problem.count:
                solver.addConstr(sum(leaving or arriving) == 1)
            elif leaving or arriving:
                solver.addConstr(sum(leaving) == sum(arriving) if leaving and arriving else sum(leaving + arriving) == 0)
            for place in range(len(problem.places)):
                plain = [
                    variable
                    for step, variable in self.taken
                    if step.place == place and not step.fused and at in (step.first, step.end)
                ]
                if 0 < at < problem.count and plain:
                    solver.addConstr(sum(plain) <= 1)
        return True

    def _on_devices(self) -> None:
        """Where each block runs, which values move, and where one step hands over to the next."""
        problem, solver = self.problem, self._solver
        devices = range(len(problem.devices))
        of = problem.device_of
        self.at = [
            [
                sum(variable for step, variable in self.taken if of[step.place] == device and step.first <= block < step.end)
                for device in devices
            ]
            for block in range(problem.count)
        ]
        self.moves: list[tuple[int, int, int, Any]] = []
        for number, value in enumerate(problem.values):
            for source in devices:
                for destination in devices:
                    if source != destination and not isinstance(self.at[value.producer][source], int):
                        self._move(number, source, destination)
        self.handovers: list[tuple[int, Any]] = []
        for device in devices:
            for at in range(1, problem.count):
                before = [held for step, held in self.taken if step.end == at and of[step.place] == device]
                after = [held for step, held in self.taken if step.first == at and of[step.place] == device]
                if before and after and problem.handover(device):
                    handed = solver.addVariable(lb=0, ub=1)
                    solver.addConstr(handed >= sum(before) + sum(after) - 1)
                    self.handovers.append((device, handed))

    def _one_stretch(self) -> None:
        """In a stream each device runs one stretch of blocks: it ends its part of one input before it begins the next, and
        between two stretches it would wait for others instead."""
        for device in range(len(self.problem.devices)):
            entered = []
            for block in range(1, self.problem.count):
                entry = self._solver.addVariable(lb=0, ub=1)
                self._solver.addConstr(entry >= self.at[block][device] - self.at[block - 1][device] + 0.0 * entry)
                entered.append(entry)
            if entered:
                self._solver.addConstr(sum(entered) + self.at[0][device] <= 1)

    def _move(self, number: int, source: int, destination: int) -> None:
        value = self.problem.values[number]
        readers = [block for block in value.consumers if not isinstance(self.at[block][destination], int)]
        if readers:
            moved = self._solver.addVariable(lb=0, ub=1)
            for block in readers:
                self._solver.addConstr(moved >= self.at[value.producer][source] + self.at[block][destination] - 1)
            self.moves.append((number, source, destination, moved))

    def _memory(self) -> None:
        for device in range(len(self.problem.devices)):
            capacity = self.problem.capacity(device)
            here = [(step, held) for step, held in self.taken if self.problem.device_of[step.place] == device and step.memory]
            if capacity is not None and here:
                unit = max(step.memory for step, _ in here)
                self._solver.addConstr(sum((step.memory / unit) * held for step, held in here) <= capacity / unit)

    def _load(self, device: int) -> Any:
        """How long a device is busy, in units of the longest step."""
        problem = self.problem
        terms = [(step.seconds / self.scale) * held for step, held in self.taken if problem.device_of[step.place] == device]
        terms += [
            (problem.move(number, source, destination) / self.scale) * moved
            for number, source, destination, moved in self.moves
            if device in (source, destination)
        ]
        terms += [(problem.handover(device) / self.scale) * handed for at, handed in self.handovers if at == device]
        return sum(terms)

    def _value(self, objective: str) -> Any:
        """A linear objective, in units of the longest step."""
        if objective == "latency":  # a move delays once, though it keeps both of its ends busy
            once = [
                (self.problem.move(number, source, destination) / self.scale) * moved
                for number, source, destination, moved in self.moves
            ]
            return sum(self.loads) - sum(once)
        return sum(rate * load for rate, load in zip(self.problem.rates[objective], self.loads, strict=True))

    def _keep(self, objective: str, most: float) -> None:
        parts = self.loads if objective == "throughput" else [self._value(objective)]
        for part in parts:
            if not isinstance(part, int):
                self._solver.addConstr(part <= most / self.scale * (1 + 1e-9))

    def _minimize(self) -> None:
        if self.goal.objective == "throughput":
            busiest = self._solver.addVariable(lb=0)
            for load in self.loads:
                if not isinstance(load, int):
                    self._solver.addConstr(busiest >= load)
            self._solver.setObjective(1.0 * busiest, highspy.ObjSense.kMinimize)
        else:
            self._solver.setObjective(self._value(self.goal.objective), highspy.ObjSense.kMinimize)

    def _answer(self) -> Solution:
        info = self._solver.getInfo()
        nodes = max(0, int(info.mip_node_count))
        if info.primal_solution_status != 2:  # feasible
            proven = self._solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible
            return Solution((), INFINITE, proven, nodes)
        found = self._solver.getSolution().col_value
        steps: list[Step] = sorted(
            (step for step, variable in self.taken if found[variable.index] > 0.5), key=lambda step: step.first
        )
        value = value_of(self.problem, steps, self.goal.objective)
        bound = min(value, max(0.0, info.mip_dual_bound * self.scale))
        exact = value - bound <= ROUNDING * max(value, 1e-30)
        return Solution((Plan(value, tuple(steps)),), value if exact else bound, exact, nodes)
