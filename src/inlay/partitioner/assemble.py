"""A priced plan as a Partition: regions with their reasons, transfers, owners of states, floors and proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inlay.errors import PartitionError
from inlay.partitioner.build import Offering
from inlay.partitioner.pricing import PricedPlan, price_plan
from inlay.partitioner.problem import Problem, Step
from inlay.partitioner.reasons import options_elsewhere, region_reason
from inlay.specs.goal import format_amount
from inlay.specs.partition import Alternative, Partition, PlannedBlock, PlannedRegion, PlannedTransfer


@dataclass(frozen=True)
class Verdict:
    """What was found beside the plan: the bound and how it was proven, the floors, and why this plan is the answer."""

    bound: float
    method: str
    floors: tuple[Alternative, ...]
    reason: str

    def because(self, reason: str) -> Verdict:
        """The same with another reason."""
        return replace(self, reason=reason)


def assemble(offering: Offering, problem: Problem, plan: PricedPlan, verdict: Verdict, *, ids: Sequence[str] = ()) -> Partition:
    """The Partition of a plan. Regions are called r0, r1, ... in the order they run, where `ids` does not name them."""
    search, chain = offering.search, offering.search.chain
    names = list(ids) or [f"r{number}" for number in range(len(plan.steps))]
    used = {problem.places[step.place].device for step in plan.steps}
    value = plan.value.value
    bound = min(verdict.bound, value)
    return Partition(
        program=chain.program.digest,
        name=chain.program.name,
        blocks=tuple(
            PlannedBlock(name=block.name, digest=block.digest, flops_share=chain.share(block.index, block.index + 1))
            for block in chain.blocks
        ),
        points=chain.points,
        cluster=search.cluster,
        regions=tuple(_region(offering, problem, plan, number, names[number]) for number in range(len(plan.steps))),
        transfers=_transfers(offering, plan, names),
        handovers=plan.handovers,
        states=_owners(offering, plan.steps, names),
        pins=tuple(map(str, search.pins)),
        zones=tuple(map(str, search.residencies)),
        objective=search.goal.objective,
        within=search.goal.within,
        figures=plan.figures,
        value=plan.value,
        bound=bound,
        gap=(value - bound) / value if value > 0 else 0.0,
        method=verdict.method,
        floors=verdict.floors,
        reason=verdict.reason,
        unused=tuple(name for name in search.cluster.devices if name not in used),
    )


def assemble_edited(offering: Offering, problem: Problem, edited: Partition, verdict: Verdict) -> Partition:
    """A partition whose regions somebody else chose, with its costs. Raises PartitionError for a place not offered."""
    ordered = sorted(edited.regions, key=lambda region: region.first)
    steps = []
    for region in ordered:
        if region.place not in problem.places:
            raise PartitionError(
                f"region {region.id} is at {region.place}, expected one of {', '.join(map(str, problem.places))}",
                hint="offer that place, or edit the region",
            )
        number = problem.places.index(region.place)
        fused = region.fused and region.end - region.first > 1
        steps.append(Step(region.first, region.end, number, fused, 0.0))
    first = price_plan(offering, problem, steps)
    known = zip(first.steps, first.prices, strict=True)
    priced = [replace(step, seconds=price.seconds.value, memory=price.memory) for step, price in known]
    plan = price_plan(offering, problem, priced)
    objective = offering.search.goal.objective
    takes, least = format_amount(objective, plan.value.value), format_amount(objective, verdict.bound)
    reason = f"edited by hand: it takes {takes}, and the best plan that is known takes {least}"
    return assemble(offering, problem, plan, verdict.because(reason), ids=[region.id for region in ordered])


def _region(offering: Offering, problem: Problem, plan: PricedPlan, number: int, name: str) -> PlannedRegion:
    search, step, price = offering.search, plan.steps[number], plan.prices[number]
    place = problem.places[step.place]
    options = options_elsewhere(offering, problem, plan, number)
    return PlannedRegion(
        id=name,
        first=step.first,
        end=step.end,
        device=place.device,
        backend=place.backend,
        version=search.versions.get(place.backend, ""),
        precision=search.precision,
        fused=step.fused,
        seconds=price.seconds,
        flops_share=search.chain.share(step.first, step.end),
        weights=search.chain.weight_bytes(step.first, step.end),
        memory=price.memory,
        reason=f"{region_reason(offering, problem, plan, number, options)} ({price.source})",
        alternatives=tuple(option.answer for option in options),
    )


def _transfers(offering: Offering, plan: PricedPlan, names: Sequence[str]) -> tuple[PlannedTransfer, ...]:
    crossings = offering.search.chain.crossings
    return tuple(
        PlannedTransfer(
            value=crossings[move.value].name,
            size=max(crossings[move.value].sizes),
            source=names[move.source],
            destination=names[move.destination],
            seconds=seconds,
        )
        for move, seconds in plan.moves
    )


def _owners(offering: Offering, steps: Sequence[Step], names: Sequence[str]) -> dict[str, str]:
    """The region that holds each state."""
    return {
        state: next(name for name, step in zip(names, steps, strict=True) if step.first <= first and end <= step.end)
        for state, (first, end) in offering.search.owners.items()
        if any(step.first <= first and end <= step.end for step in steps)
    }
