"""From a search to its Problem in numbers: which steps may be, at what price, and why the others may not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from inlay.cost import Price, Refusal
from inlay.hardware import Place
from inlay.partitioner.problem import Problem, Step, Value
from inlay.partitioner.rates import rates_of
from inlay.partitioner.search import Search


class Offering:
    """What every run of blocks costs at every place, by the evidence that a search has at this moment."""

    def __init__(self, search: Search) -> None:
        self.search, self.prices = search, search.prices()
        self.devices = tuple(dict.fromkeys(place.device for place in search.places))

    def obstacle(self, first: int, end: int, place: Place) -> str:
        """Why these blocks cannot be at a place, in words; nothing where they can."""
        search = self.search
        for index in range(first, end):
            reason = search.refused.get((index, place), "")
            if reason:
                return f"block {search.chain.blocks[index].name!r}: {reason}"
        if self.options(first, end, place):
            return ""
        for start, stop in search.together.get(place, ()):
            if start < end and first < stop and not (first <= start and stop <= end):
                names = f"{search.chain.blocks[start].name!r} to {search.chain.blocks[stop - 1].name!r}"
                return f"{place.backend} keeps blocks {names} together"
        for index in range(first, end):
            price = self.prices.block(index, place)
            if isinstance(price, Refusal):
                return f"block {search.chain.blocks[index].name!r}: {price.reason}"
        price = self.prices.sequence(first, end, place)
        return price.reason if isinstance(price, Refusal) else "it must be lowered whole there, which was not measured"

    def options(self, first: int, end: int, place: Place) -> tuple[tuple[bool, Price], ...]:
        """The ways to run blocks at a place, each (fused, price): block by block, and whole where that has a price."""
        search = self.search
        if any((index, place) in search.refused for index in range(first, end)):
            return ()
        crossed = [run for run in search.together.get(place, ()) if run[0] < end and first < run[1]]
        found: list[tuple[bool, Price]] = []
        ways = (False,) if end - first == 1 else (False, True)
        for fused in ways:
            whole = fused and all(first <= start and stop <= end for start, stop in crossed)
            if crossed and not whole:
                continue
            price = self.prices.fused(first, end, place) if fused else self.prices.sequence(first, end, place)
            if isinstance(price, Price):
                found.append((fused, price))
        return tuple(found)


def build(offering: Offering, *, pinned: bool = True) -> Problem:
    """The problem of a search: all steps with a price, those that a pin forbids left out where `pinned`."""
    search, chain = offering.search, offering.search.chain
    count, devices = len(chain.blocks), offering.devices
    pins = search.pinned if pinned else {}
    steps: list[list[Step]] = [[] for _ in range(count)]
    for number, place in enumerate(search.places):
        for step in _steps_at(offering, number, place):
            if all(pins[at].place == place for at in range(step.first, step.end) if at in pins):
                steps[step.first].append(step)
    return Problem(
        count=count,
        places=search.places,
        devices=devices,
        steps=tuple(tuple(held) for held in steps),
        values=tuple(Value(crossing.producer, crossing.consumers) for crossing in chain.crossings),
        transfers={
            (number, source, destination): search.links.transfer(devices[source], devices[destination], crossing.sizes).value
            for number, crossing in enumerate(chain.crossings)
            for source in range(len(devices))
            for destination in range(len(devices))
            if source != destination
        },
        handovers=tuple(offering.prices.handover(device).value for device in devices),
        capacities=tuple(search.cluster.device(device).memory for device in devices),
        rates=rates_of(search.cluster, devices, search.goal),
    )


def restrict(problem: Problem, place: int) -> Problem:
    """The same problem with one place alone."""
    return replace(problem, steps=tuple(tuple(step for step in held if step.place == place) for held in problem.steps))


def boundless(problem: Problem) -> Problem:
    """The same problem with room for everything."""
    return replace(problem, capacities=())


def _steps_at(offering: Offering, number: int, place: Place) -> Iterator[Step]:
    """All steps at one place that have a price and cut no state in two."""
    search = offering.search
    count = len(search.chain.blocks)
    for first in range(count):
        if first in search.glued:
            continue
        for end in range(first + 1, count + 1):
            if (end - 1, place) in search.refused:
                break
            if end not in search.glued:
                for fused, seconds, memory in _priced(offering, first, end, place):
                    yield Step(first, end, number, fused, seconds, memory)


def _priced(offering: Offering, first: int, end: int, place: Place) -> Iterator[tuple[bool, float, int]]:
    """(fused, seconds, bytes) of the ways to run blocks at a place. Runs that nobody measured are summed up here."""
    search = offering.search
    known = (first, end) in search.runs or any(s <= first and end <= e for s, e in search.chain.equal_stretches)
    if known or search.together.get(place) or end - first == 1:
        yield from ((fused, price.seconds.value, price.memory) for fused, price in offering.options(first, end, place))
        return
    seconds, memory = offering.prices.handover(place.device).value * (end - first - 1), 0
    for index in range(first, end):
        price = offering.prices.block(index, place)
        if isinstance(price, Refusal):
            return
        seconds, memory = seconds + price.seconds.value, memory + price.memory
    yield False, seconds, memory
