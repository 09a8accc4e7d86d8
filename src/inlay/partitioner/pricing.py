"""A plan with everything it costs, part by part, each with interval and grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inlay.cost import Price, cut_name, predicted, total
from inlay.errors import PartitionError
from inlay.partitioner.build import Offering
from inlay.partitioner.problem import Move, Problem, Step, memory_by_device, moves_of
from inlay.specs.profile import Estimate
from inlay.units import format_bytes


@dataclass(frozen=True)
class PricedPlan:
    """Steps with their prices, the moves between devices and the handovers within them; `parts` sum up to `seconds`."""

    steps: tuple[Step, ...]
    prices: tuple[Price, ...]
    moves: tuple[tuple[Move, Estimate], ...]
    handovers: Estimate | None
    parts: dict[str, Estimate]
    seconds: Estimate


def price_plan(offering: Offering, problem: Problem, steps: Sequence[Step]) -> PricedPlan:
    """What a plan costs in full. Raises PartitionError for a step without a price, with the reason."""
    prices = tuple(_price(offering, problem, step) for step in steps)
    devices = [problem.devices[problem.device_of[step.place]] for step in steps]
    moves, _ = moves_of(problem, steps)
    parts = dict(part for price in prices for part in price.parts)
    moved: list[tuple[Move, Estimate]] = []
    for move in moves:
        crossing = offering.search.chain.crossings[move.value]
        source, destination = devices[move.source], devices[move.destination]
        seconds = offering.search.links.transfer(source, destination, crossing.sizes)
        moved.append((move, seconds))
        parts[f"move {crossing.name} from {source} to {destination}"] = seconds
    handovers: list[Estimate] = []
    for number in range(1, len(steps)):
        if devices[number - 1] == devices[number]:
            handovers.append(offering.prices.handover(devices[number]))
            parts[cut_name(steps[number].first, devices[number])] = handovers[-1]
    seconds = total(parts.values())
    return PricedPlan(
        steps=tuple(steps),
        prices=prices,
        moves=tuple(moved),
        handovers=total(handovers) if handovers else None,
        parts=parts,
        seconds=seconds if len(prices) == 1 and prices[0].source == "measured" else predicted(seconds),
    )


def overflow(problem: Problem, steps: Sequence[Step]) -> str:
    """Which device a plan does not fit on, in words; nothing where it fits."""
    for device, size in sorted(memory_by_device(problem, steps).items()):
        capacity = problem.capacity(device)
        if capacity is not None and size > capacity:
            name = problem.devices[device]
            return f"it needs {format_bytes(size)} on {name}, which has {format_bytes(capacity)}"
    return ""


def _price(offering: Offering, problem: Problem, step: Step) -> Price:
    place = problem.places[step.place]
    for fused, price in offering.options(step.first, step.end, place):
        if fused == step.fused:
            return price
    reason = offering.obstacle(step.first, step.end, place) or "that was not measured"
    raise PartitionError(
        f"blocks {step.first} to {step.end - 1} have no price at {place}: {reason}",
        hint="measure them, or choose another place",
    )
