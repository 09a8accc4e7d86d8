"""The floors of a plan: each single place with all of it, its price or why it cannot, and why there is no plan at all."""

from __future__ import annotations

from dataclasses import dataclass

from inlay.cost import beats
from inlay.errors import InlayError, OutOfMemoryError, UnsupportedError
from inlay.partitioner.build import Offering, boundless, build, restrict
from inlay.partitioner.goals import no_budget_kept
from inlay.partitioner.pricing import PricedPlan, overflow, price_plan
from inlay.partitioner.problem import Problem
from inlay.partitioner.solve import solve
from inlay.specs.goal import format_amount
from inlay.specs.partition import Alternative

WORTH_CUTTING = 0.05
"""At one place several regions, or one that runs block by block, are taken for one lowered whole where they take at least this
share less. A cut within a place only loses fusing, and its parts were timed in other processes than the whole: measured, those
differ by 2 to 7 % on a shared machine."""


@dataclass(frozen=True)
class Floor:
    """One place with all of it: its price as an Alternative, and its plan where it may be shipped."""

    answer: Alternative
    plan: PricedPlan | None = None


def find_floors(offering: Offering, problem: Problem) -> tuple[Floor, ...]:
    """Every place with all of it: its price without pins, or why it cannot; with a plan where the pins allow it too."""
    search = offering.search
    free = build(offering, pinned=False) if search.pinned else problem
    floors = []
    for number, place in enumerate(search.places):
        plan = _whole_at(offering, free, number)
        if plan is None:
            floors.append(Floor(Alternative(place=str(place), reason=_why_no_floor(offering, free, number))))
            continue
        pin = next((str(pin) for pin in search.pinned.values() if pin.place != place), "")
        reason = f"the pin '{pin}' forbids it" if pin else _broken_budget(offering, plan)
        shipped = None if reason else plan
        if not reason and search.goal.objective != "latency":
            reason = f"{search.goal.objective} {format_amount(search.goal.objective, plan.value.value)}"
        floors.append(Floor(Alternative(place=str(place), seconds=plan.seconds, reason=reason), shipped))
    return tuple(floors)


def _broken_budget(offering: Offering, plan: PricedPlan) -> str:
    """The first budget that a plan does not keep, in words."""
    for name, most in offering.search.goal.within.items():
        value = plan.figures[name].value
        if value > most * (1 + 1e-6):
            return f"its {name} would be {format_amount(name, value)}, over the budget of {format_amount(name, most)}"
    return ""


def _whole_at(offering: Offering, free: Problem, number: int) -> PricedPlan | None:
    """The best plan at one place; in one region lowered whole, unless another is faster by WORTH_CUTTING."""
    alone = restrict(free, number)
    found = solve(alone).plans
    if not found:
        return None
    best = price_plan(offering, free, found[0].steps)
    single = [step for step in alone.steps[0] if step.end == free.count and not overflow(free, [step])]
    whole = [step for step in single if step.fused] or single
    if not whole or best.steps == (whole[0],):
        return best
    one = price_plan(offering, free, [min(whole, key=lambda step: step.seconds)])
    enough = best.seconds.value <= (1.0 - WORTH_CUTTING) * one.seconds.value
    return best if enough and beats(best.parts, one.parts) else one


def _why_no_floor(offering: Offering, free: Problem, number: int) -> str:
    search, place = offering.search, offering.search.places[number]
    unbound = solve(boundless(restrict(free, number))).plans
    if unbound:
        return overflow(free, unbound[0].steps)
    for index in range(free.count):
        reason = offering.obstacle(index, index + 1, place)
        if reason and not any(start <= index < stop for start, stop in search.together.get(place, ())):
            return reason
    return offering.obstacle(0, free.count, place) or "no way to run all of it there has a price"


def no_plan(offering: Offering, problem: Problem) -> InlayError:
    """Why there is no plan at all: a block that no place takes, or memory."""
    search = offering.search
    for index, block in enumerate(search.chain.blocks):
        reasons = [
            f"{place}: {offering.obstacle(index, index + 1, place)}"
            for place in search.places
            if index not in search.pinned or search.pinned[index].place == place
        ]
        if not any(step.first <= index < step.end for held in problem.steps for step in held):
            pin = f" where '{search.pinned[index]}' pins it" if index in search.pinned else ""
            return UnsupportedError(
                f"block {block.name!r} can run nowhere{pin}: {'; '.join(reasons)}",
                hint="offer another place" if not pin else "remove that pin, or offer another place",
            )
    if solve(problem).plans:
        return no_budget_kept(problem, search.goal)
    free = solve(boundless(problem)).plans
    if free:
        return OutOfMemoryError(
            f"no cut of {search.chain.program.name!r} fits: in the fastest one {overflow(problem, free[0].steps)}",
            hint="offer more devices or memory, or plan for smaller points",
        )
    return UnsupportedError(
        f"no cut of {search.chain.program.name!r} obeys every pin, state and atomic group", hint="remove a pin"
    )
