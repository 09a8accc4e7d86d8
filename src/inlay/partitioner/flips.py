"""What would change the decision: the same table of costs with a faster link, device or framework, more memory, a lower price.

Each change is tried by itself, in steps, until some block of the plan that would be shipped is at another place. Without I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from inlay.partitioner.build import restrict
from inlay.partitioner.goals import solve_goal
from inlay.partitioner.plans import places_of
from inlay.partitioner.problem import Plan, Problem, Step, memory_by_device, value_of
from inlay.partitioner.symmetry import equal_devices
from inlay.specs.goal import Goal
from inlay.specs.partition import Flip
from inlay.units import format_bytes

FACTORS = (1.25, 1.5, 2.0, 4.0, 10.0)
"""So many times faster, or cheaper; where the last changes nothing the others are not tried."""
MOST_LABELS = 20_000
"""A search that made more is not repeated so often."""
MOST_SIZES = 8
"""Of memory, each less than the one before."""
MOST_CHOICES = 200
"""Blocks times places of a mixed-integer programme that is."""
FIGURES = {"cost": "price", "energy": "power"}


@dataclass(frozen=True)
class _Change:
    """One thing that could be otherwise: in words and as a problem, by factor."""

    subject: str
    text: str
    at: Callable[[float], Problem]


@dataclass(frozen=True)
class _Trier:
    problem: Problem
    goal: Goal
    shipped: Sequence[Step]
    worth: float

    def other_plan(self, problem: Problem) -> Plan | None:
        """The plan that would be shipped, where it is another one and no tie with the one that is: a plan of several places
        must take at least the share `worth` less than a single one, and any other than the one that is shipped now."""
        plans = solve_goal(problem, self.goal).plans
        if not plans:
            return None
        alone = [solve_goal(restrict(problem, place), self.goal).plans for place in range(len(problem.places))]
        floor = min((found[0] for found in alone if found), key=lambda plan: plan.seconds, default=None)
        is_worth = floor is None or plans[0].seconds <= (1.0 - self.worth) * floor.seconds
        chosen = plans[0] if is_worth or floor is None else floor
        is_other = places_of(chosen.steps) != places_of(self.shipped)
        return chosen if is_other and chosen.seconds <= (1.0 - self.worth) * self._now(problem) else None

    def _now(self, problem: Problem) -> float:
        """What the shipped plan comes to with a change."""
        known = {(step.first, step.end, step.place, step.fused): step for held in problem.steps for step in held}
        steps = [known[step.first, step.end, step.place, step.fused] for step in self.shipped]
        return value_of(problem, steps, self.goal.objective)

    def flip(self, change: _Change) -> Flip:
        """The least factor tried at which the plan is another; without a change where there is none."""
        if self.other_plan(change.at(FACTORS[-1])) is not None:
            for factor in FACTORS:
                plan = self.other_plan(change.at(factor))
                if plan is not None:
                    return self.told(change.subject, change.text.format(factor), plan)
        return Flip(subject=change.subject, what=change.text.format(FACTORS[-1]))

    def told(self, subject: str, what: str, plan: Plan) -> Flip:
        """A plan beside the shipped one, in words."""
        change = moved(self.problem, places_of(self.shipped), places_of(plan.steps))
        return Flip(subject=subject, what=what, value=plan.seconds, change=change)


def find_flips(problem: Problem, goal: Goal, shipped: Sequence[Step], *, worth: float, labels: int) -> tuple[Flip, ...]:
    """What would change the plan that is `shipped`. A Flip that has no change stands for what was tried in vain.

    Equal devices change together. None at all where the search made too many `labels` to be repeated so often, or where
    something outside of the table decided, such as a trial.
    """
    programme = goal.objective == "throughput" or bool(goal.within)
    trier = _Trier(problem, goal, shipped, worth)
    if labels > MOST_LABELS or (programme and problem.count * len(problem.places) > MOST_CHOICES):
        return ()
    if trier.other_plan(problem) is not None:
        return ()
    return (*map(trier.flip, _changes(problem, goal)), *_memories(trier))


def moved(problem: Problem, before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """Which runs of blocks go where: "0-3 to cpu:1/openvino"."""
    runs = []
    for (one, other), blocks in groupby(range(len(before)), key=lambda at: (before[at], after[at])):
        if one != other:
            held = list(blocks)
            numbers = f"{held[0]}-{held[-1]}" if len(held) > 1 else f"{held[0]}"
            runs.append(f"{numbers} to {problem.places[other]}")
    return ", ".join(runs)


def _changes(problem: Problem, goal: Goal) -> Iterator[_Change]:
    """Links, devices, frameworks and prices, where each has a say."""
    faster = "{:g} times as fast"
    if problem.transfers and any(problem.transfers.values()):
        yield _Change("links between devices", faster, partial(_links, problem))
    kinds = _kinds(problem)
    for kind in kinds if len(kinds) > 1 else ():
        places = {number for number, device in enumerate(problem.device_of) if device in kind}
        yield _Change(_names(problem, kind), faster, partial(_places, problem, places))
    backends = dict.fromkeys(place.backend for place in problem.places)
    for backend in backends if len(backends) > 1 else ():
        places = {number for number, place in enumerate(problem.places) if place.backend == backend}
        if len(kinds) > 1 and any(places == {at for at, on in enumerate(problem.device_of) if on in kind} for kind in kinds):
            continue  # the same as that device
        yield _Change(backend, faster, partial(_places, problem, places))
    for name, figure in FIGURES.items():
        if name in problem.rates and (goal.objective == name or name in goal.within):
            for kind in kinds:
                yield _Change(_names(problem, kind), f"{figure} divided by {{:g}}", partial(_rates, problem, name, kind))


def _memories(trier: _Trier) -> Iterator[Flip]:
    """With room for everything on a kind of device: whether another plan would be shipped, and how much it takes there."""
    problem = trier.problem
    for kind in _kinds(problem):
        capacity = problem.capacity(kind[0])
        if capacity is None:
            continue
        needed = 0
        best: Plan | None = None
        for _ in range(MOST_SIZES):  # the best plan with any room, then with less than that took, as long as it is another
            size: int | None = None if best is None else needed - 1
            sizes = tuple(size if device in kind else item for device, item in enumerate(problem.capacities))
            plan = trier.other_plan(replace(problem, capacities=sizes)) if size is None or size > capacity else None
            if plan is None:
                break
            used, best = memory_by_device(problem, plan.steps), plan
            needed = max((used.get(device, 0) for device in kind), default=0)
        if best is None:
            yield Flip(subject=_names(problem, kind), what="any more memory")
        else:
            what = f"{format_bytes(needed)} of memory instead of {format_bytes(capacity)}"
            yield trier.told(_names(problem, kind), what, best)


def _kinds(problem: Problem) -> list[tuple[int, ...]]:
    """Devices by number, equal ones together."""
    groups = equal_devices(problem)
    held = {device for group in groups for device in group}
    return sorted([*groups, *((device,) for device in range(len(problem.devices)) if device not in held)])


def _names(problem: Problem, kind: Collection[int]) -> str:
    return " and ".join(problem.devices[device] for device in kind)


def _links(problem: Problem, factor: float) -> Problem:
    return replace(problem, transfers={key: seconds / factor for key, seconds in (problem.transfers or {}).items()})


def _places(problem: Problem, at: Collection[int], factor: float) -> Problem:
    steps = tuple(
        tuple(replace(step, seconds=step.seconds / factor) if step.place in at else step for step in held)
        for held in problem.steps
    )
    return replace(problem, steps=steps)


def _rates(problem: Problem, name: str, at: Collection[int], factor: float) -> Problem:
    rates = tuple(rate / factor if device in at else rate for device, rate in enumerate(problem.rates[name]))
    return replace(problem, rates={**problem.rates, name: rates})
