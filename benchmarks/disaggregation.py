"""Prefill and decode on two devices beside both devices doing everything: goodput at rising load, and the chooser's regret.

    python benchmarks/disaggregation.py [--model demo|llama] [--rounds N] [--quick] [--once] [--out DIR] [--work DIR]

Two devices of a core each, OpenVINO on one and ONNX Runtime on the other. Contestants: prompts on one and tokens on the other,
both ways round; mixed batching, each request whole at the place with the fewest open ones, with two chunks; and what the
scheduler chooses from the tables it measured. Requests come as a Poisson process, the same ones for everybody, in three shapes.
Budgets are multiples of the times measured without load. The last run of the model that is left out is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from goodput_page import page
from measuring import RESULTS, ROOT, environment, kept_records, say, write_result
from phase_times import phase_times
from quiet import LIMIT, Watch, cpu_seconds, quietly
from routes import CHOSEN, PLACES, Engine, Route, routes, take_turn
from step_time import build_model
from traffic import SHAPES, Asked, Shape

from inlay.client.load import RequestRecord, keeps, tpot_of, ttft_of
from inlay.specs.generation import Placement

MODELS = {"demo": "demo target", "llama": "random Llama"}
CONTEXT = 1024
TTFT_TIMES, TPOT_TIMES = 4.0, 2.0
"""The budgets, in units of the medians without load at the slower of the two places."""
ALONE = 8
STEP, QUICK_STEP = 1.5, 2.0
"""From one rate to the next."""
FIRST, LEAST_LEVELS, MOST_LEVELS = 0.5, 3, 8
"""The first rate, of what two devices do that take requests one at a time."""
ENOUGH = 0.5
"""Rates rise until every contestant keeps the budgets of less than this share."""
DULL = 0.95
"""Of the rates at which every contestant kept at least this share in the first round only the last is measured again."""
IDLE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Unloaded:
    """Medians of one place alone, in seconds, and of whole requests."""

    ttft: float
    tpot: float
    whole: float


@dataclass(slots=True)
class Level:
    """One shape at one rate: by route the share of requests within the budgets, a figure a round, and all records."""

    shape: Shape
    rate: float
    shares: dict[str, list[float]] = field(default_factory=dict)
    records: dict[str, list[RequestRecord]] = field(default_factory=dict)
    noisy: int = 0


@dataclass(slots=True)
class Course:
    """A shape with its budgets and the rates tried so far."""

    shape: Shape
    alone: dict[str, Unloaded]
    levels: list[Level] = field(default_factory=list)

    @property
    def budgets(self) -> dict[str, float]:
        """Seconds by name."""
        ttft, tpot = (max(getattr(item, name) for item in self.alone.values()) for name in ("ttft", "tpot"))
        return {"ttft": TTFT_TIMES * ttft, "tpot": TPOT_TIMES * tpot}

    @property
    def first_rate(self) -> float:
        """Requests a second of the first level."""
        return FIRST * sum(1 / item.whole for item in self.alone.values())

    @property
    def open_levels(self) -> list[Level]:
        """Those to measure again."""
        dull = [min(found[0] for found in level.shares.values()) >= DULL for level in self.levels]
        return self.levels[max(0, (dull.index(False) if False in dull else len(dull)) - 1) :]


async def alone(engine: Engine, shape: Shape) -> dict[str, Unloaded]:
    """One request at a time, whole, at each place in turn."""
    found: dict[str, list[RequestRecord]] = {place: [] for place in PLACES}
    requests = shape.arrivals(1.0, ALONE + 1, seed="alone", longest=CONTEXT - 1)
    for place, records in found.items():
        for index, asked in enumerate(requests):
            now = time.perf_counter()
            placement = Placement(prefill=place, decode=place)
            record = await engine.ask(asked, placement, index=index, tenant=f"alone {index}", zero=now)
            records += [record] if index else []  # the first one warms
    return {
        place: Unloaded(
            ttft=statistics.median(map(ttft_of, records)),
            tpot=statistics.median(tpot_of(record) or 0.0 for record in records),
            whole=statistics.mean(record.seconds for record in records),
        )
        for place, records in found.items()
    }


class Race:
    """All turns of one model."""

    def __init__(self, engines: dict[str, Engine], *, count: int, once: bool, step: float) -> None:
        self._engines, self._count, self._once, self._step = engines, count, once, step
        self._turns = 0
        self._pids = [pid for item in engines.values() for pid in item.processes()]
        self._rng = random.Random(3)

    async def level(self, course: Course, level: Level, number: int) -> None:
        """Every route one turn, in random order."""
        requests = course.shape.arrivals(level.rate, self._count, seed=f"round {number}", longest=CONTEXT - 1)
        contestants = routes()
        for route in self._rng.sample(contestants, len(contestants)):
            turn = partial(self._turn, route, requests)
            if self._once:
                watch = Watch(self._pids)
                records = await turn()
                level.noisy += watch.read()[1] > LIMIT
            else:
                seen = await quietly(turn, pids=self._pids)
                records, level.noisy = seen.result, level.noisy + seen.noisy
            kept = sum(keeps(record, course.budgets) for record in records)
            level.shares.setdefault(route.name, []).append(kept / len(records))
            level.records.setdefault(route.name, []).extend(records)

    async def rise(self, course: Course) -> None:
        """The first round: rates rise until nobody keeps up."""
        rate = course.first_rate
        while len(course.levels) < MOST_LEVELS:
            level = Level(course.shape, round(rate, 2))
            course.levels.append(level)
            await self.level(course, level, 0)
            shares = {name: found[-1] for name, found in level.shares.items()}
            say(f"{course.shape.name}, {level.rate:g} requests/s: " + ", ".join(f"{n} {s:.2f}" for n, s in shares.items()))
            if max(shares.values()) < ENOUGH and len(course.levels) >= LEAST_LEVELS:
                return
            rate *= self._step

    async def _turn(self, route: Route, requests: Sequence[Asked]) -> list[RequestRecord]:
        self._turns += 1  # nothing is kept from one turn for the next
        engine = self._engines[route.setting.name]
        return await take_turn(engine, route.rule, requests, tenant=f"{route.name} {self._turns}")


async def idle_share(engines: Sequence[Engine]) -> float:
    """Cores used by all engines together while nobody has a turn."""
    pids = [pid for item in engines for pid in item.processes()]
    before = cpu_seconds(pids)
    await asyncio.sleep(IDLE_SECONDS)
    return (cpu_seconds(pids) - before) / IDLE_SECONDS


async def race(model: str, folder: Path, options: Any, work: Path) -> list[dict[str, Any]]:
    """Start all engines, find budgets and rates, take rounds until they are done or the time is up; one record a shape."""
    begun = time.monotonic()
    engines: dict[str, Engine] = {}
    settings = {route.setting.name: route.setting for route in routes()}
    logs = {name: work / f"{model} {index}.jsonl" for index, name in enumerate(settings)}
    shared = next(route.setting.name for route in routes() if route.rule == CHOSEN)
    try:
        for name, setting in settings.items():
            say(f"{model}: starting {name}")
            engines[name] = await asyncio.to_thread(Engine.start, folder, setting, context=CONTEXT, event_log=logs[name])
        idle = await idle_share(list(engines.values()))
        shapes = [shape for shape in SHAPES if options.shape in shape.name]
        courses = [Course(shape, await alone(engines[shared], shape)) for shape in shapes]
        contest = Race(engines, count=options.count, once=options.once, step=options.step)
        for course in courses:
            await contest.rise(course)
        took, number = time.monotonic() - begun, 1
        while number < options.rounds and time.monotonic() - begun + took < 60 * options.minutes:
            start = time.monotonic()
            for course in courses:
                for level in course.open_levels:
                    await contest.level(course, level, number)
            number, took = number + 1, time.monotonic() - start
            say(f"{model}: round {number} of {options.rounds}: {took:.0f} s")
    finally:
        for engine in engines.values():
            await engine.close()
    times = phase_times(logs[shared])
    return [record(model, course) | {"idle_cores": round(idle, 4), "phase_times": times} for course in courses]


def record(model: str, course: Course) -> dict[str, Any]:
    """Plain data of one shape."""
    budgets = course.budgets
    return {
        "model": model,
        "shape": course.shape.name,
        "budgets_ms": {name: round(1e3 * seconds, 2) for name, seconds in budgets.items()},
        "alone_ms": {
            place: {"ttft": round(1e3 * item.ttft, 2), "tpot": round(1e3 * item.tpot, 3), "whole": round(1e3 * item.whole, 1)}
            for place, item in course.alone.items()
        },
        "levels": [
            {
                "rate": level.rate,
                "turns_under_foreign_load": level.noisy,
                "routes": {name: _figures(level, name, budgets) for name in level.shares},
            }
            for level in course.levels
        ],
    }


def _figures(level: Level, name: str, budgets: dict[str, float]) -> dict[str, Any]:
    records = level.records[name]
    tpots = [tpot for record in records if (tpot := tpot_of(record)) is not None]
    return {
        "goodput": [round(level.rate * share, 4) for share in level.shares[name]],
        "shares": [round(share, 4) for share in level.shares[name]],
        "ttft_ms": round(1e3 * statistics.median(map(ttft_of, records)), 2),
        "tpot_ms": round(1e3 * statistics.median(tpots), 3),
        "kept_ttft": round(statistics.mean(keeps(item, {"ttft": budgets["ttft"]}) for item in records), 3),
        "kept_tpot": round(statistics.mean(keeps(item, {"tpot": budgets["tpot"]}) for item in records), 3),
        "cached_tokens": sum(item.cached_tokens for item in records),
        "prompt_tokens": sum(item.prompt_tokens for item in records),
        "lag_ms": round(1e3 * max(item.sent - (item.planned or 0.0) for item in records), 2),
        "went": dict(Counter(f"{item.served['prefill']} > {item.served['decode']}" for item in records).most_common()),
    }


def main() -> None:
    """Parses, races, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", choices=tuple(MODELS), default="demo", help="the demo target, or a random Llama of 96 million"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=32, help="requests of a turn")
    parser.add_argument("--minutes", type=float, default=14.0, help="no further round begins that would end later")
    parser.add_argument("--quick", action="store_true", help="one round of short turns")
    parser.add_argument("--shape", default="", help="only those with this in their name: a trial, which keeps no other")
    parser.add_argument("--once", action="store_true", help="take no turn again, also under foreign load: a trial")
    parser.add_argument("--work", type=Path, help="keep models and event logs in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.count = 1, min(options.count, 16)
    model = MODELS[options.model]
    facts = environment() | {"requests_a_turn": options.count, "turns_taken_once": options.once or options.quick}
    options.once = options.once or options.quick
    options.step = QUICK_STEP if options.quick else STEP
    kept = kept_records(options.out / "disaggregation.json", "model", [model])
    with tempfile.TemporaryDirectory(prefix="inlay-goodput-") as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        folder = ROOT / "demo" / "target" if options.model == "demo" else work / "llama"
        if not folder.exists():
            say("making the random Llama")
            build_model(folder)
        made = asyncio.run(race(model, folder, options, work))
    for item in made:
        item["commit"], item["date"], item["count"] = facts["commit"], facts["date"], options.count
    records = sorted([*kept, *made], key=lambda item: item["model"])
    text = page(records, names=[route.name for route in routes()])
    write_result(
        "disaggregation",
        title="Prefill and decode apart, or together",
        facts=facts,
        records=records,
        text=text,
        folder=options.out,
    )


if __name__ == "__main__":
    main()
