"""What to measure next, until nothing more would change the answer; then the answer. Sans-I/O: it asks, it never times.

Blocks first; then every single place with all of it lowered whole (the floors); then the regions of the best plans. What
would be shipped for the best floor is run in turn with it at last: times of different processes do not foretell a close race.
"""

from __future__ import annotations

from collections.abc import Iterable

from inlay.cost import LENGTHS, Price
from inlay.hardware import Place
from inlay.partitioner.build import Offering, build
from inlay.partitioner.decide import Race
from inlay.partitioner.plans import distinct_plans
from inlay.partitioner.remaining import INFINITE
from inlay.partitioner.search import BEST_FEW, Run, Search
from inlay.specs.partition import Partition, Trial
from inlay.specs.profile import Measurement, Wanted

WORTH_FUSING = 0.02
"""Where cuts within a region, or not fusing, cost more than this share, fused runs are looked at."""


def propose(search: Search) -> Wanted | Trial | Partition:
    """The measurements wanted next, the trial wanted (`learn_trial` takes its outcome), or the Partition.

    Whatever was asked to be measured before and not answered counts as failed.

    Raises UnsupportedError where some block fits no place, OutOfMemoryError where no plan fits, each with the reasons.
    """
    for key in search.asked:
        if key not in search.profiles:
            search.failures.setdefault(key, "it was to be measured and no answer came")
    search.asked.clear()
    wanted = _blocks(search) or _floors(search) or _runs(search) or _regions(search)
    if wanted is None:
        race = Race(search)
        return race.trial() or race.partition()
    search.asked.update(key for item in wanted.measurements for key in item.keys)
    return wanted


def _blocks(search: Search) -> Wanted | None:
    """Each unique block at each kind of place that takes it."""
    runs = [(at, at + 1) for at in range(len(search.chain.blocks))]
    asked = [(run, place, True) for place in search.places for run in runs if (run[0], place) not in search.refused]
    return _wanted(search, asked, stage="blocks", reason="each unique block on each kind of place")


def _floors(search: Search) -> Wanted | None:
    """All blocks at one place, lowered whole and block by block."""
    whole = (0, len(search.chain.blocks))
    places = [place for place in search.places if _takes_all(search, place)]
    asked = [(whole, place, fused) for place in places for fused in (True, False)]
    return _wanted(search, asked, stage="floors", reason="each single place with all of it")


def _runs(search: Search) -> Wanted | None:
    """Fused runs of a few lengths of equal blocks, where fusing pays and a cut may be anywhere among them.

    The shortest first; longer ones, which take longer to compile, only where that was faster than its blocks in order.
    """
    shortest, *longer = LENGTHS[1:]
    stretches = [item for item in search.chain.equal_stretches if len(search.places) > 1 and item[1] - item[0] >= LENGTHS[-1]]
    tried = [
        ((start, start + shortest), place) for start, _ in stretches for place in search.places if _fusing_pays(search, place)
    ]
    asked: list[tuple[Run, Place, bool]] = [(run, place, True) for run, place in tried]
    wanted = _wanted(search, asked, stage="regions", reason="fused pairs of equal blocks")
    if wanted is not None:
        return wanted
    paying = [(run[0], place) for run, place in tried if _pays(search, run, place)]
    asked = [((start, start + length), place, True) for start, place in paying for length in longer]
    return _wanted(search, asked, stage="regions", reason="fused runs of equal blocks")


def _regions(search: Search) -> Wanted | None:
    """The regions of the best few plans; each time round, the plans are found anew with what was learned.

    Of those but the first, only what looks faster than the best single place does block by block.
    """
    if search.repairs <= 0:
        return None
    problem, prices = build(Offering(search)), search.prices()
    plans, _ = distinct_plans(problem, BEST_FEW, search.goal)
    whole = [prices.sequence(0, problem.count, place) for place in search.places if _takes_all(search, place)]
    limit = min((price.seconds.value for price in whole if isinstance(price, Price)), default=INFINITE)
    few = [plan for rank, plan in enumerate(plans) if rank == 0 or not search.goal.is_plain or plan.seconds < limit]
    steps = [step for plan in few for step in plan.steps]
    asked = [((step.first, step.end), problem.places[step.place], fused) for step in steps for fused in (True, False)]
    wanted = _wanted(search, asked, stage="regions", reason="the regions of the best plans, whole and block by block")
    if wanted is not None:
        search.repairs -= 1
    return wanted


def _wanted(search: Search, asked: Iterable[tuple[Run, Place, bool]], *, stage: str, reason: str) -> Wanted | None:
    """What is not known yet of these, each thing once; None where all is known."""
    prices = search.prices()
    seen: set[object] = set()
    measurements: list[Measurement] = []
    for (first, end), place, fused in asked:
        crossed = any(start < end and first < stop for start, stop in search.together.get(place, ()))
        alone = end - first == 1
        if place.device not in search.measurable or (crossed and (alone or not fused)) or (alone and not fused):
            continue
        search.consider(first, end)
        keys = tuple(key for key in prices.unknown(prices.keys(first, end, place, fused=fused)) if key not in seen)
        if keys:
            seen.update(keys)
            measurements.append(
                Measurement(first=first, end=end, device=place.device, backend=place.backend, keys=keys, fused=fused or alone)
            )
    return Wanted(measurements=tuple(measurements), stage=stage, reason=reason) if measurements else None


def _takes_all(search: Search, place: Place) -> bool:
    """Whether a place can hold and run every block, as far as is known before the whole is lowered."""
    prices, capacity = search.prices(), search.cluster.device(place.device).memory
    memory = 0
    kept = {at for start, stop in search.together.get(place, ()) for at in range(start, stop)}
    for at in range(len(search.chain.blocks)):
        if (at, place) in search.refused:
            return False
        price = prices.block(at, place)
        if not isinstance(price, Price):
            if at not in kept:
                return False
            continue
        memory += price.memory
    return capacity is None or memory <= capacity


def _fusing_pays(search: Search, place: Place) -> bool:
    """Whether at a place the whole is faster than block by block, or cuts cost enough to look; true where nobody knows."""
    whole = (0, len(search.chain.blocks))
    prices = search.prices()
    known = all(isinstance(found(*whole, place), Price) for found in (prices.fused, prices.sequence))
    return not known or _pays(search, whole, place)


def _pays(search: Search, run: Run, place: Place) -> bool:
    """Whether a run lowered whole is faster than its blocks in order, or the cuts between them cost enough to look."""
    prices = search.prices()
    fused, sequence = prices.fused(*run, place), prices.sequence(*run, place)
    if not isinstance(fused, Price) or not isinstance(sequence, Price):
        return False
    cuts = prices.handover(place.device).value * (run[1] - run[0] - 1)
    return max(cuts, sequence.seconds.value - fused.seconds.value) > WORTH_FUSING * sequence.seconds.value
