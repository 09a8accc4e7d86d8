"""A plan with everything it costs, part by part, each with interval and grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inlay.cost import Price, cut_name, predicted, scaled, total
from inlay.errors import PartitionError
from inlay.partitioner.build import Offering
from inlay.partitioner.problem import Move, Problem, Step, memory_by_device, moves_of
from inlay.specs.profile import Estimate
from inlay.units import format_bytes


@dataclass(frozen=True)
class PricedPlan:
    """Steps with their prices, the moves between devices and the handovers within them; `parts` sum up to `seconds`.

    `value` is that of the search's objective, `terms` the named parts whose sum it is; `figures` are the values of every
    objective that is known of.
    """

    steps: tuple[Step, ...]
    prices: tuple[Price, ...]
    moves: tuple[tuple[Move, Estimate], ...]
    handovers: Estimate | None
    parts: dict[str, Estimate]
    seconds: Estimate
    value: Estimate
    terms: dict[str, Estimate]
    figures: dict[str, Estimate]


def price_plan(offering: Offering, problem: Problem, steps: Sequence[Step]) -> PricedPlan:
    """What a plan costs in full. Raises PartitionError for a step without a price, with the reason."""
    prices = tuple(_price(offering, problem, step) for step in steps)
    devices = [problem.devices[problem.device_of[step.place]] for step in steps]
    moves, _ = moves_of(problem, steps)
    parts = dict(part for price in prices for part in price.parts)
    busy: dict[str, dict[str, Estimate]] = {device: {} for device in devices}
    for price, device in zip(prices, devices, strict=True):
        busy[device].update(price.parts)
    moved: list[tuple[Move, Estimate]] = []
    for move in moves:
        crossing = offering.search.chain.crossings[move.value]
        source, destination = devices[move.source], devices[move.destination]
        seconds = offering.search.links.transfer(source, destination, crossing.sizes)
        moved.append((move, seconds))
        parts[f"move {crossing.name} from {source} to {destination}"] = seconds
        for device in (source, destination):
            busy[device][f"move {crossing.name} from {source} to {destination}"] = seconds
    handovers: list[Estimate] = []
    for number in range(1, len(steps)):
        if devices[number - 1] == devices[number]:
            handovers.append(offering.prices.handover(devices[number]))
            parts[cut_name(steps[number].first, devices[number])] = handovers[-1]
            busy[devices[number]][cut_name(steps[number].first, devices[number])] = handovers[-1]
    seconds = total(parts.values())
    if len(prices) > 1 or prices[0].source != "measured":
        seconds = predicted(seconds)
    terms = _terms(problem, parts, busy)
    figures = {name: total(held.values()) for name, held in terms.items()} | {"latency": seconds}
    if len(busy) == 1:  # one device has nothing to overlap with
        figures["throughput"] = seconds
    objective = offering.search.goal.objective
    return PricedPlan(
        steps=tuple(steps),
        prices=prices,
        moves=tuple(moved),
        handovers=total(handovers) if handovers else None,
        parts=parts,
        seconds=seconds,
        value=figures[objective],
        terms=terms[objective],
        figures=figures,
    )


def _terms(
    problem: Problem, parts: dict[str, Estimate], busy: dict[str, dict[str, Estimate]]
) -> dict[str, dict[str, Estimate]]:
    """By objective, the named parts that its value is the sum of: of a stream those of the busiest device."""
    busiest = max(busy.values(), key=lambda held: total(held.values()).value)
    found = {"latency": parts, "throughput": {name: predicted(item) for name, item in busiest.items()}}
    for objective, rates in problem.rates.items():
        found[objective] = {
            f"{name} on {device}": predicted(scaled(item, rates[problem.devices.index(device)]))
            for device, held in busy.items()
            for name, item in held.items()
        }
    return found


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
