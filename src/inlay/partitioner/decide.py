"""From what is known to the Partition that is shipped: the best plan where it surely beats the best single place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from inlay.cost import beats
from inlay.partitioner.assemble import Verdict, assemble, assemble_edited
from inlay.partitioner.build import Offering, build
from inlay.partitioner.flips import find_flips
from inlay.partitioner.floors import WORTH_CUTTING, Floor, find_floors, no_plan
from inlay.partitioner.goals import solve_goal
from inlay.partitioner.plans import MOST_PLANS, distinct_plans
from inlay.partitioner.pricing import PricedPlan, price_plan
from inlay.partitioner.problem import Problem, Step
from inlay.partitioner.search import Search, Shape
from inlay.partitioner.solve import Solution
from inlay.specs.goal import format_amount
from inlay.specs.partition import Partition, Trial
from inlay.specs.profile import Estimate

WORTH = 0.01
"""A plan of several regions is shipped where it takes at least this share less than a single place. What was timed apart, piece
by piece, does not foretell less, and every further framework and process has a price that is not in the table."""


CLOSE = 0.8
"""A plan expected to take less than this share of the best floor needs no trial."""


class Race:
    """The best plan against the best single place, by what a search knows at this moment."""

    def __init__(self, search: Search) -> None:
        self.search, self.offering = search, Offering(search)
        self.problem: Problem = build(self.offering)

    @cached_property
    def solution(self) -> Solution:
        """The best plans."""
        return solve_goal(self.problem, self.search.goal, plans=MOST_PLANS)

    @cached_property
    def floors(self) -> tuple[Floor, ...]:
        """Every single place."""
        return find_floors(self.offering, self.problem)

    @cached_property
    def floor(self) -> PricedPlan | None:
        """The best of the floors that may be shipped."""
        shippable = [floor.plan for floor in self.floors if floor.plan is not None]
        return min(shippable, key=lambda plan: plan.value.value, default=None)

    @cached_property
    def best(self) -> PricedPlan:
        """The best plan that is known, be it a floor."""
        floor = self.floor
        if not self.solution.plans:
            if floor is None:
                raise no_plan(self.offering, self.problem)
            return floor
        fastest = self.solution.plans[0]
        near = floor is not None and fastest.seconds > (1.0 - WORTH) * floor.value.value
        best = price_plan(self.offering, self.problem, fastest.steps if near else _simplest(self.solution))
        return floor if floor is not None and floor.value.value < best.value.value else best

    def partition(self) -> Partition:
        """What is shipped: the plan of the least value, or the best floor where the plan does not beat it beyond the noise.
        A trial of the two decides where there was one."""
        chosen, reason = self._choice
        flips = find_flips(self.problem, self.search.goal, chosen.steps, worth=WORTH, labels=self.solution.labels)
        found = assemble(self.offering, self.problem, chosen, self.verdict(reason))
        return msgspec.structs.replace(found, flips=flips)

    def trial(self) -> Trial | None:
        """The plan that would be shipped and the floor it beats, where the race is close, both can be run here and were
        not yet. Of latency alone: nothing else is tried by running two plans in turn."""
        best, floor, search = self.best, self.floor, self.search
        if floor is None or search.goal.objective != "latency" or best.value.value < CLOSE * floor.value.value:
            return None
        if not search.measurable.issuperset(self._devices(best) | self._devices(floor)):
            return None
        if self._choice[0] is floor or (self._shape(best), self._shape(floor)) in search.trials:
            return None
        verdict = self.verdict("to be tried")
        return Trial(
            plan=assemble(self.offering, self.problem, best, verdict),
            rival=assemble(self.offering, self.problem, floor, verdict),
        )

    def verdict(self, reason: str) -> Verdict:
        """What is told beside a plan."""
        blocks, places = len(self.search.chain.blocks), len(self.search.places)
        solution = self.solution
        how = "the optimum of this table of costs" if solution.exact else "no certificate: the search was stopped"
        if self.search.goal.within or self.search.goal.objective == "throughput":
            means = f"mixed-integer programme (HiGHS) over {blocks} blocks and {places} places, {solution.labels} nodes"
        else:
            means = f"chain dynamic programme over {blocks} blocks and {places} places, {solution.labels} labels"
        floors = tuple(floor.answer for floor in self.floors)
        return Verdict(bound=solution.bound, method=f"{means}: {how}", floors=floors, reason=reason)

    def text(self, value: float) -> str:
        """A value of the objective with its unit."""
        return format_amount(self.search.goal.objective, value)

    @cached_property
    def _choice(self) -> tuple[PricedPlan, str]:
        """What to ship, and why in a sentence. Ties go to the single place."""
        best, floor, solution = self.best, self.floor, self.solution
        value = self.text(best.value.value)
        if floor is None:
            fewest = solution.plans and solution.plans[0].steps != best.steps
            rank = (
                f"within {100 * WORTH:g} % of the best plan, with the fewest places" if fewest else "the best plan that can be"
            )
            return best, f"no single place may take all of it; this is {rank}, {value}"
        where = self.problem.places[floor.steps[0].place]
        alone = self.text(floor.value.value)
        if best.steps == floor.steps:
            return floor, f"{where} takes all of it, and no other plan is better than its {alone}"
        worth = WORTH_CUTTING if {step.place for step in best.steps} == {floor.steps[0].place} else WORTH
        enough = best.value.value <= (1.0 - worth) * floor.value.value
        if enough and beats(best.terms, floor.terms):
            rivals = self._shape(best), self._shape(floor)
            if rivals in self.search.trials:
                said = f"{len(best.steps)} regions, {value}", f"{alone} of {where} alone"
                return _judged(best, floor, self.search.trials[rivals], *said)
            return best, f"it takes {value}, beyond the noise less than the {alone} of {where} alone"
        if len(best.steps) == 1 and best.steps[0].place == floor.steps[0].place and len(floor.steps) == 1:
            by_block = f"block by block would take {value}, within {100 * worth:g} % of the {alone}"
            return floor, f"{where} takes all of it, lowered whole: {by_block}"
        near = "within the noise" if enough else f"within {100 * worth:g} %"
        said_ = f"{len(best.steps)} regions would take {value}, {near} of the {alone} of {where} alone"
        return floor, f"{said_}: ties go to one place"

    def _shape(self, plan: PricedPlan) -> Shape:
        return tuple((step.first, step.end, str(self.problem.places[step.place]), step.fused) for step in plan.steps)

    def _devices(self, plan: PricedPlan) -> set[str]:
        return {self.problem.places[step.place].device for step in plan.steps}


def best_plans(search: Search, count: int) -> tuple[Partition, ...]:
    """The best plan of each of the `count` best assignments of blocks to places, in order, whether or not it would be shipped.

    They are to be judged on fresh timings, together with the floors (`floor_plans`).
    """
    race = Race(search)
    plans, solution = distinct_plans(race.problem, count, search.goal)
    if not plans:
        raise no_plan(race.offering, race.problem)
    race.solution = solution
    return tuple(
        assemble(
            race.offering,
            race.problem,
            price_plan(race.offering, race.problem, plan.steps),
            race.verdict(f"number {number} of the best plans"),
        )
        for number, plan in enumerate(plans, 1)
    )


def floor_plans(search: Search) -> tuple[Partition, ...]:
    """Every single place that may take all of it, as a Partition, the best first."""
    race = Race(search)
    plans = sorted((floor.plan for floor in race.floors if floor.plan is not None), key=lambda plan: plan.value.value)
    return tuple(assemble(race.offering, race.problem, plan, race.verdict("all of it at one place")) for plan in plans)


def reprice(search: Search, partition: Partition) -> Partition:
    """An edited partition with its costs as they are known now; its regions stay as they are.

    Check it first (`check_partition`). Raises PartitionError for a region that has no price, with the reason.
    """
    race = Race(search)
    return assemble_edited(race.offering, race.problem, partition, race.verdict(""))


def _simplest(solution: Solution) -> Sequence[Step]:
    """Of the plans that are a tie with the best, the one with the fewest places, then regions, then the least value."""
    limit = solution.plans[0].seconds * (1.0 + WORTH)
    ties = [plan for plan in solution.plans if plan.seconds <= limit]
    return min(ties, key=lambda plan: (len({step.place for step in plan.steps}), len(plan.steps), plan.seconds)).steps


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
