"""From what is known to the Partition that is shipped: the best plan where it surely beats the best single place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inlay.cost import beats
from inlay.errors import InlayError, OutOfMemoryError, UnsupportedError
from inlay.partitioner.assemble import Verdict, assemble, assemble_edited
from inlay.partitioner.build import Offering, boundless, build, restrict
from inlay.partitioner.plans import MOST_PLANS, distinct_plans
from inlay.partitioner.pricing import PricedPlan, overflow, price_plan
from inlay.partitioner.problem import Problem, Step
from inlay.partitioner.search import Search, Shape
from inlay.partitioner.solve import Solution, solve
from inlay.specs.partition import Alternative, Partition, Trial
from inlay.specs.profile import Estimate
from inlay.units import format_seconds

WORTH = 0.01
"""A plan of several regions is shipped where it takes at least this share less than a single place. What was timed apart, piece
by piece, does not foretell less, and every further framework and process has a price that is not in the table."""


WORTH_CUTTING = 0.05
"""At one place several regions are taken for one where they take at least this share less. A cut within a place only loses
fusing, and its parts were timed in other processes than the whole: measured, those differ by 2 to 7 % on a shared machine."""


CLOSE = 0.8
"""A plan expected to take less than this share of the best floor needs no trial."""


@dataclass(frozen=True)
class Floor:
    """One place with all of it: its price as an Alternative, and its plan where it may be shipped."""

    answer: Alternative
    plan: PricedPlan | None = None


def decide(search: Search) -> Partition:
    """The plan with the least expected time, or the best floor where the plan does not beat it beyond the noise.

    A trial of the two decides where there was one.
    """
    offering = Offering(search)
    problem = build(offering)
    solution = solve(problem, plans=MOST_PLANS)
    floors = find_floors(offering, problem)
    best, floor = _rivals(offering, problem, solution, floors)
    chosen, reason = _choose(best, floor, solution, problem, search)
    return assemble(offering, problem, chosen, _verdict(offering, solution, floors, reason))


def find_trial(search: Search) -> Trial | None:
    """The plan that would be shipped and the floor it beats, where the race is close, both can be run here and were not yet."""
    offering = Offering(search)
    problem = build(offering)
    solution = solve(problem, plans=MOST_PLANS)
    floors = find_floors(offering, problem)
    best, floor = _rivals(offering, problem, solution, floors)
    if floor is None or best.seconds.value < CLOSE * floor.seconds.value:
        return None
    if not search.measurable.issuperset(_devices(problem, best) | _devices(problem, floor)):
        return None
    if (
        _choose(best, floor, solution, problem, search)[0] is floor
        or (_shape(problem, best), _shape(problem, floor)) in search.trials
    ):
        return None
    verdict = _verdict(offering, solution, floors, "to be tried")
    return Trial(plan=assemble(offering, problem, best, verdict), rival=assemble(offering, problem, floor, verdict))


def _rivals(
    offering: Offering, problem: Problem, solution: Solution, floors: tuple[Floor, ...]
) -> tuple[PricedPlan, PricedPlan | None]:
    """The best plan that is known, and the best of the floors that may be shipped."""
    shippable = [floor.plan for floor in floors if floor.plan is not None]
    floor = min(shippable, key=lambda plan: plan.seconds.value, default=None)
    if not solution.plans:
        if floor is None:
            raise no_plan(offering, problem)
        return floor, floor
    fastest = solution.plans[0]
    near = floor is not None and fastest.seconds > (1.0 - WORTH) * floor.seconds.value
    best = price_plan(offering, problem, fastest.steps if near else _simplest(solution))
    return (floor if floor is not None and floor.seconds.value < best.seconds.value else best), floor


def _simplest(solution: Solution) -> Sequence[Step]:
    """Of the plans that are a tie with the fastest, the one with the fewest places, then regions, then seconds."""
    limit = solution.plans[0].seconds * (1.0 + WORTH)
    ties = [plan for plan in solution.plans if plan.seconds <= limit]
    return min(ties, key=lambda plan: (len({step.place for step in plan.steps}), len(plan.steps), plan.seconds)).steps


def best_plans(search: Search, count: int) -> tuple[Partition, ...]:
    """The best plan of each of the `count` best assignments of blocks to places, in order, whether or not it would be shipped.

    They are to be judged on fresh timings, together with the floors (`floor_plans`).
    """
    offering = Offering(search)
    problem = build(offering)
    plans, solution = distinct_plans(problem, count)
    if not plans:
        raise no_plan(offering, problem)
    verdict = _verdict(offering, solution, find_floors(offering, problem), "")
    priced = [price_plan(offering, problem, plan.steps) for plan in plans]
    return tuple(
        assemble(offering, problem, plan, verdict.because(f"number {number} of the best plans"))
        for number, plan in enumerate(priced, 1)
    )


def floor_plans(search: Search) -> tuple[Partition, ...]:
    """Every single place that may take all of it, as a Partition, the fastest first."""
    offering = Offering(search)
    problem = build(offering)
    floors = find_floors(offering, problem)
    verdict = _verdict(offering, solve(problem), floors, "")
    plans = sorted((floor.plan for floor in floors if floor.plan is not None), key=lambda plan: plan.seconds.value)
    return tuple(assemble(offering, problem, plan, verdict.because("all of it at one place")) for plan in plans)


def reprice(search: Search, partition: Partition) -> Partition:
    """An edited partition with its costs as they are known now; its regions stay as they are.

    Check it first (`check_partition`). Raises PartitionError for a region that has no price, with the reason.
    """
    offering = Offering(search)
    problem = build(offering)
    solution = solve(problem)
    verdict = _verdict(offering, solution, find_floors(offering, problem), "")
    return assemble_edited(offering, problem, partition, verdict)


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
        reason = f"the pin '{pin}' forbids it" if pin else ""
        floors.append(Floor(Alternative(place=str(place), seconds=plan.seconds, reason=reason), None if pin else plan))
    return tuple(floors)


def _whole_at(offering: Offering, free: Problem, number: int) -> PricedPlan | None:
    """The best plan at one place; in one region, unless several are faster by WORTH_CUTTING."""
    alone = restrict(free, number)
    found = solve(alone).plans
    if not found:
        return None
    best = price_plan(offering, free, found[0].steps)
    single = [step for step in alone.steps[0] if step.end == free.count and not overflow(free, [step])]
    if len(best.steps) == 1 or not single:
        return best
    one = price_plan(offering, free, [min(single, key=lambda step: step.seconds)])
    enough = best.seconds.value <= (1.0 - WORTH_CUTTING) * one.seconds.value
    return best if enough and beats(best.parts, one.parts) else one


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
    free = solve(boundless(problem)).plans
    if free:
        return OutOfMemoryError(
            f"no cut of {search.chain.program.name!r} fits: in the fastest one {overflow(problem, free[0].steps)}",
            hint="offer more devices or memory, or plan for smaller points",
        )
    return UnsupportedError(
        f"no cut of {search.chain.program.name!r} obeys every pin, state and atomic group", hint="remove a pin"
    )


def _choose(
    best: PricedPlan, floor: PricedPlan | None, solution: Solution, problem: Problem, search: Search
) -> tuple[PricedPlan, str]:
    """What to ship, and why in a sentence. Ties go to the single place."""
    seconds = format_seconds(best.seconds.value)
    if floor is None:
        fewest = solution.plans and solution.plans[0].steps != best.steps
        rank = (
            f"within {100 * WORTH:g} % of the fastest plan, with the fewest places"
            if fewest
            else "the fastest plan that can be"
        )
        return best, f"no single place may take all of it; this is {rank}, {seconds}"
    where = problem.places[floor.steps[0].place]
    alone = format_seconds(floor.seconds.value)
    if best.steps == floor.steps:
        return floor, f"{where} takes all of it, and no other plan is faster than its {alone}"
    worth = WORTH_CUTTING if {step.place for step in best.steps} == {floor.steps[0].place} else WORTH
    enough = best.seconds.value <= (1.0 - worth) * floor.seconds.value
    if enough and beats(best.parts, floor.parts):
        rivals = _shape(problem, best), _shape(problem, floor)
        if rivals in search.trials:
            return _judged(
                best, floor, search.trials[rivals], f"{len(best.steps)} regions, {seconds}", f"{alone} of {where} alone"
            )
        return best, f"it takes {seconds}, beyond the noise less than the {alone} of {where} alone"
    near = "within the noise" if enough else f"within {100 * worth:g} %"
    said = f"{len(best.steps)} regions would take {seconds}, {near} of the {alone} of {where} alone"
    return floor, f"{said}: ties go to one place"


def _judged(best: PricedPlan, floor: PricedPlan, ratio: Estimate | None, said: str, alone: str) -> tuple[PricedPlan, str]:
    """What a trial makes of a plan that is expected to win."""
    if ratio is None:
        return floor, f"{said} against the {alone}, could not be run in turn: one place is shipped"
    figure = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}, measured) of its time"
    if ratio.high < 1.0:
        return best, f"{said} against the {alone}; run in turn it took {figure}"
    return (
        floor,
        f"{said} against the {alone}, were expected to be faster; run in turn they took {figure}: ties go to one place",
    )


def _shape(problem: Problem, plan: PricedPlan) -> Shape:
    return tuple((step.first, step.end, str(problem.places[step.place]), step.fused) for step in plan.steps)


def _devices(problem: Problem, plan: PricedPlan) -> set[str]:
    return {problem.places[step.place].device for step in plan.steps}


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


def _verdict(offering: Offering, solution: Solution, floors: tuple[Floor, ...], reason: str) -> Verdict:
    blocks, places = len(offering.search.chain.blocks), len(offering.search.places)
    how = "the optimum of this table of costs" if solution.exact else "not proven: the search was stopped"
    method = f"chain dynamic programme over {blocks} blocks and {places} places, {solution.labels} labels: {how}"
    return Verdict(bound=solution.bound, method=method, floors=tuple(floor.answer for floor in floors), reason=reason)
