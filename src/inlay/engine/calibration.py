"""Measures, when the engine starts, how long the batches of each runner take: a second or two, so that choices of the first
request rest on this machine as it is. The result is a LatencyTable for each runner, grade measured.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from itertools import count
from time import monotonic

from inlay.engine.answers import Answers
from inlay.specs.device import BatchFailed, Draft, DraftRow, Row, Submit
from inlay.specs.latency import LatencyTable, Point, fit_table
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import RunnerFacts

TIMES = 3
BUDGET_SECONDS = 3.0
"""A runner that needs longer for its points goes on with those it has; the first two are always taken."""
DRAFT_STEPS = 4
FIRST_BATCH = -(2**31)
"""Numbers grow, as those of the scheduler do, which begin at 0: the pieces of a cut model take their batches in that order."""
MEASURED = "measured"
log = logging.getLogger("inlay.engine")


async def measure_tables(facts: Sequence[RunnerFacts], answers: Answers) -> dict[str, LatencyTable]:
    """By runner; one that fails a batch has no table. One runner at a time, since devices may share cores."""
    numbers = count(FIRST_BATCH)
    tables: dict[str, LatencyTable] = {}
    for item in facts:
        points: list[Point] = []
        overheads: list[float] = []
        began = monotonic()
        for batch, width, capacity in _sizes(item):
            if monotonic() - began > BUDGET_SECONDS and len(points) >= 2:
                break
            for attempt in range(TIMES + 1):
                message = _batch(item, next(numbers), batch, width, capacity)
                sent = monotonic()
                done = await answers.run(item.runner, message)
                wall = monotonic() - sent
                if isinstance(done, BatchFailed):
                    log.warning("%s could not be measured: %s", item.runner, done.message)
                    break
                if attempt:
                    steps = getattr(done, "steps", 1)
                    points.append(Point(batch, width, capacity, (done.ended - done.started) / steps))
                    overheads.append(wall - (done.ended - done.started))
        if points:
            best = [_median(points, size) for size in dict.fromkeys((p.batch, p.width, p.past) for p in points)]
            tables[item.runner] = fit_table(best, overhead=max(0.0, statistics.median(overheads)), grade=MEASURED)
            log.info("%s: %s", item.runner, tables[item.runner])
    return tables


def _sizes(facts: RunnerFacts) -> list[tuple[int, int, int]]:
    """(batch, width, capacity) that tell the coefficients apart, the most telling ones first."""
    small, large = facts.capacities[0], facts.capacities[-1]
    many = facts.batches[-1] if facts.batches else facts.slots
    if "draft" in facts.roles:
        return list(dict.fromkeys([(1, 1, small), (many, 1, small), (1, 1, large)]))
    wide = min(8, facts.chunk, small)
    sizes = [
        (1, 1, small),
        (1, wide, small),
        (many, 1, small),
        (1, min(facts.chunk, small), small),
        (many, wide, small),
        (1, 1, large),
        (many, 1, large),
    ]
    if facts.paged:
        return [size for size in dict.fromkeys(sizes) if size[0] * -(-size[2] // facts.page) <= facts.pages]
    rooms = dict(zip(facts.capacities, facts.rooms or (facts.slots,) * len(facts.capacities), strict=True))
    return [size for size in dict.fromkeys(sizes) if size[0] <= rooms[size[2]]]


def _batch(facts: RunnerFacts, number: int, batch: int, width: int, capacity: int) -> Submit | Draft:
    """A batch of made-up tokens over whatever lies in the slots or pages; what it writes there is never valid. A slot is read
    whole, pages as far as the past goes, which is then to the end of the capacity."""
    past = max(0, capacity - width - DRAFT_STEPS) // 2
    if "draft" in facts.roles:
        drafted = tuple(
            DraftRow(sequence=-1 - i, guess=i, slot=i, tokens=(i,) * width, past_length=past, count=DRAFT_STEPS, sample=GREEDY)
            for i in range(batch)
        )
        return Draft(batch=number, capacity=capacity, first=0, count=batch, rows=drafted)
    drafts = width - 1 if 1 < width <= 8 and not facts.batches else 0
    pages = -(-capacity // facts.page) if facts.paged else 0
    rows = tuple(
        Row(
            sequence=-1 - i,
            slot=i,
            tokens=(i,) * width,
            past_length=capacity - width if pages else past,
            sample=GREEDY,
            drafts=drafts,
            pages=tuple(range(i * pages, (i + 1) * pages)),
        )
        for i in range(batch)
    )
    return Submit(batch=number, phase="measure", capacity=capacity, first=0, count=batch, width=width, rows=rows)


GREEDY = Sampling(temperature=0.0)


def _median(points: list[Point], size: tuple[int, int, int]) -> Point:
    batch, width, past = size
    return Point(batch, width, past, statistics.median(p.seconds for p in points if (p.batch, p.width, p.past) == size))
