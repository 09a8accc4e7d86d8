"""The best plans that differ in where a block runs, not only in how its region is lowered."""

from __future__ import annotations

from collections.abc import Sequence

from inlay.partitioner.goals import solve_goal
from inlay.partitioner.problem import Plan, Problem, Step
from inlay.partitioner.solve import Solution
from inlay.specs.goal import Goal

MOST_PLANS = 64


def distinct_plans(problem: Problem, count: int, goal: Goal = Goal()) -> tuple[tuple[Plan, ...], Solution]:
    """The best plan of each of the `count` best assignments of blocks to places, in order, and the solution behind them.

    Fewer where there are not so many, or where the best MOST_PLANS plans have not so many assignments.
    """
    wanted = 4 * count
    while True:
        solution = solve_goal(problem, goal, plans=wanted)
        best: dict[tuple[int, ...], Plan] = {}
        for plan in solution.plans:
            best.setdefault(places_of(plan.steps), plan)
        if len(best) >= count or len(solution.plans) < wanted or wanted >= MOST_PLANS:
            return tuple(best.values())[:count], solution
        wanted = MOST_PLANS


def places_of(steps: Sequence[Step]) -> tuple[int, ...]:
    """The number of the place of every block of a plan."""
    return tuple(step.place for step in steps for _ in range(step.first, step.end))
