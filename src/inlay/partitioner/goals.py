"""The best plans for a goal: by labels where everything adds up, by the mixed-integer programme where it does not."""

from __future__ import annotations

from dataclasses import replace

from inlay.errors import PartitionError
from inlay.partitioner.problem import Plan, Problem
from inlay.partitioner.programme import solve_programme
from inlay.partitioner.solve import Solution, solve
from inlay.specs.goal import Goal, format_amount


def solve_goal(problem: Problem, goal: Goal, *, plans: int = 1) -> Solution:
    """The best plans in order, `seconds` being the value of the objective; one at most where it takes a programme."""
    if goal.is_plain:
        return solve(problem, plans=plans)
    if goal.within or goal.objective == "throughput":
        return solve_programme(problem, goal)
    weighed = _weighed(problem, goal.objective)
    found = solve(weighed, plans=plans)
    originals = {(step.first, step.end, step.place, step.fused): step for held in problem.steps for step in held}
    return replace(
        found,
        plans=tuple(
            Plan(plan.seconds, tuple(originals[item.first, item.end, item.place, item.fused] for item in plan.steps))
            for plan in found.plans
        ),
    )


def _weighed(problem: Problem, objective: str) -> Problem:
    """The same problem with everything in dollars or joules instead of seconds; a move keeps both of its ends busy."""
    rates = problem.rates[objective]
    return replace(
        problem,
        steps=tuple(
            tuple(replace(step, seconds=step.seconds * rates[problem.device_of[step.place]]) for step in held)
            for held in problem.steps
        ),
        transfers=None
        if problem.transfers is None
        else {
            (value, source, destination): seconds * (rates[source] + rates[destination])
            for (value, source, destination), seconds in problem.transfers.items()
        },
        handovers=tuple(seconds * rates[device] for device, seconds in enumerate(problem.handovers)),
    )


def no_budget_kept(problem: Problem, goal: Goal) -> PartitionError:
    """Why no plan keeps the budgets: what each of them would come to at least."""
    least = []
    for name, most in goal.within.items():
        found = solve_goal(problem, Goal(objective=name)).plans
        if found:
            least.append(f"{name} is at least {format_amount(name, found[0].seconds)} of {format_amount(name, most)} allowed")
    return PartitionError(f"no plan keeps every budget: {'; '.join(least)}", hint="raise a budget, or offer other devices")
