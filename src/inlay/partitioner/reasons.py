"""Why a region is where it is: what every other place would cost or why it cannot be, and the sentence that says so."""

from __future__ import annotations

from dataclasses import dataclass

from inlay.hardware import Place, device_kind, parse_place
from inlay.partitioner.build import Offering
from inlay.partitioner.pricing import PricedPlan, overflow
from inlay.partitioner.problem import Problem, Step, plan_seconds
from inlay.specs.partition import Alternative
from inlay.units import format_seconds

MOST_REASONS = 2


@dataclass(frozen=True)
class Option:
    """One other place for a region: what people read of it, and seconds of the whole plan with it (None = it cannot be)."""

    answer: Alternative
    whole: float | None = None


def options_elsewhere(offering: Offering, problem: Problem, plan: PricedPlan, number: int) -> tuple[Option, ...]:
    """Every other place for the region of that number, the rest of the plan left as it is."""
    own = problem.places[plan.steps[number].place]
    return tuple(_option(offering, problem, plan, number, place) for place in problem.places if place != own)


def region_reason(offering: Offering, problem: Problem, plan: PricedPlan, number: int, options: tuple[Option, ...]) -> str:
    """Why here, and the next best place with its price, in a sentence."""
    search, step, price = offering.search, plan.steps[number], plan.prices[number]
    pins = [str(search.pinned[at]) for at in range(step.first, step.end) if at in search.pinned]
    possible = [option for option in options if option.whole is not None and option.answer.seconds is not None]
    own = problem.places[step.place]
    other = [option for option in possible if not _twins(offering, own, parse_place(option.answer.place))]
    ranked = sorted(other or possible, key=lambda option: option.whole or 0.0)
    now, here = format_seconds(plan_seconds(problem, plan.steps)), format_seconds(price.seconds.value)
    if pins:
        return f"pinned here by '{pins[0]}'{_next_best(ranked, now)}"
    if not ranked:
        refused = [f"{option.answer.place}: {option.answer.reason}" for option in options if option.answer.reason]
        told = "; ".join(refused[:MOST_REASONS]) + ("; ..." if len(refused) > MOST_REASONS else "")
        return f"no other place can take it ({told})" if told else "the only place offered"
    faster = min(ranked, key=lambda option: option.answer.seconds.value if option.answer.seconds else 0.0).answer
    assert faster.seconds is not None
    if faster.seconds.value < price.seconds.value:
        alone = format_seconds(faster.seconds.value)
        return (
            f"{faster.place} alone would be faster ({alone} against {here}), not with what moves then{_next_best(ranked, now)}"
        )
    return f"fastest here with {here}{_next_best(ranked, now)}"


def _twins(offering: Offering, one: Place, other: Place) -> bool:
    """Whether two places are alike: one backend on two devices of a kind."""
    cluster = offering.search.cluster
    return one.backend == other.backend and device_kind(cluster, one.device) == device_kind(cluster, other.device)


def _next_best(ranked: list[Option], now: str) -> str:
    if not ranked or ranked[0].answer.seconds is None or ranked[0].whole is None:
        return ""
    best = ranked[0].answer
    assert best.seconds is not None
    price, whole = format_seconds(best.seconds.value), format_seconds(ranked[0].whole)
    return f"; next best is {best.place} with {price}: the plan would take {whole} instead of {now}"


def _option(offering: Offering, problem: Problem, plan: PricedPlan, number: int, place: Place) -> Option:
    step, search = plan.steps[number], offering.search
    ways = offering.options(step.first, step.end, place)
    if not ways:
        return Option(Alternative(place=str(place), reason=offering.obstacle(step.first, step.end, place)))
    fused, price = min(ways, key=lambda way: way[1].seconds.value)
    moved = Step(step.first, step.end, problem.places.index(place), fused, price.seconds.value, price.memory)
    steps = (*plan.steps[:number], moved, *plan.steps[number + 1 :])
    pins = [search.pinned[at] for at in range(step.first, step.end) if at in search.pinned]
    broken = next((pin for pin in pins if pin.place != place), None)
    if broken is not None:
        return Option(Alternative(place=str(place), seconds=price.seconds, reason=f"the pin '{broken}' forbids it"))
    lacking = overflow(problem, steps)
    if lacking:
        return Option(Alternative(place=str(place), seconds=price.seconds, reason=lacking))
    whole = plan_seconds(problem, steps)
    return Option(
        Alternative(place=str(place), seconds=price.seconds, reason=f"the plan would take {format_seconds(whole)}"), whole
    )
