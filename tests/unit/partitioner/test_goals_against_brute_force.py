"""Every objective and budget over chains of blocks against trying all plans."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from test_solve_against_brute_force import every_plan, fits, problems

from inlay.errors import InputError, PartitionError
from inlay.partitioner import Problem
from inlay.partitioner.goals import solve_goal
from inlay.partitioner.problem import value_of
from inlay.specs.goal import Goal, format_amount, parse_goal

SOME = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
RATES = {"cost": (1.0, 3.0), "energy": (4.0, 1.0)}


def best(problem: Problem, goal: Goal) -> float:
    values = [
        value_of(problem, steps, goal.objective)
        for steps in every_plan(problem)
        if fits(problem, steps) and all(value_of(problem, steps, name) <= most for name, most in goal.within.items())
    ]
    return min(values, default=float("inf"))


@SOME
@given(problem=problems(most=5, fused=True), objective=st.sampled_from(("throughput", "cost", "energy")))
def test_each_objective_is_as_good_as_trying_all_plans(problem: Problem, objective: str) -> None:
    problem = replace(problem, rates=RATES)
    found = solve_goal(problem, Goal(objective=objective))
    wanted = best(problem, Goal(objective=objective))
    assert found.exact
    if not found.plans:
        assert wanted == float("inf")
        return
    (plan,) = found.plans
    assert plan.seconds == pytest.approx(wanted, rel=1e-5)
    assert plan.seconds == pytest.approx(value_of(problem, plan.steps, objective))
    assert fits(problem, plan.steps)


@SOME
@given(problem=problems(most=4), limited=st.sampled_from(("latency", "cost", "throughput")), share=st.floats(0.0, 1.0))
def test_a_budget_is_kept_and_costs_no_more_than_it_must(problem: Problem, limited: str, share: float) -> None:
    problem = replace(problem, rates=RATES)
    plans = [steps for steps in every_plan(problem) if fits(problem, steps)]
    values = [value for steps in plans if (value := value_of(problem, steps, limited)) < float("inf")]
    if not values:
        return
    limit = min(values) + share * (max(values) - min(values)) + 1e-6
    goal = Goal(objective="energy", within={limited: limit})
    found = solve_goal(problem, goal)
    assert found.plans
    assert value_of(problem, found.plans[0].steps, limited) <= limit * (1 + 1e-6)
    assert found.plans[0].seconds <= best(problem, goal) * (1 + 1e-5)


def test_goals_are_read_and_bad_ones_are_told() -> None:
    goal = parse_goal("cost", ["latency=120ms", "energy = 3 J"])
    assert goal == Goal(objective="cost", within={"latency": 0.12, "energy": 3.0})
    assert not goal.is_plain
    assert format_amount("cost", 0.002) == "$0.002"
    with pytest.raises(PartitionError, match="objective: 'speed' is not known, expected one of: latency, throughput"):
        parse_goal("speed", [])
    with pytest.raises(PartitionError, match="'money' is not known"):
        parse_goal("latency", ["money=3"])
    with pytest.raises(PartitionError, match="comes second for latency"):
        parse_goal("cost", ["latency=1s", "latency=2s"])
    with pytest.raises(PartitionError, match="expected a number in J"):
        parse_goal("cost", ["energy=3 kWh"])
    with pytest.raises(PartitionError, match="expected more than zero"):
        parse_goal("cost", ["latency=0 ms"])
    with pytest.raises(InputError, match="latency=fast"):
        parse_goal("cost", ["latency=fast"])
