"""How many requests a second the simulator takes: an Azure-shaped load on a thousand chips, and where its time goes.

    python benchmarks/simulator_speed.py [--chips N] [--requests N] [--out DIR]

Requests come at random, in turn to engines of one chip each, or of four chips of which the scheduler chooses. Lengths are drawn
so that their 5th, 50th and 95th percentiles are about those of the conversations in Azure's trace of 2023 (prompts 181, 1,020,
4,083 tokens; answers 41, 129, 451): log-normal. Times are those of an invented chip. One process a core.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import RESULTS, environment, say, table, write_result

from inlay.simulator import LinkSetup, Simulation, SimulationSetup, make_source
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.workload import Workload

CONTEXT = 16384
PROMPTS, ANSWERS = "lognormal:1020:0.95", "lognormal:129:0.73"
RATE = 4.0
"""Requests a second for each chip."""
CHIP = LatencyTable(fixed=0.006, per_row=2e-5, per_token=4e-5, per_past=2e-9, spread=0.0, overhead=5e-4, grade="modelled")
GOAL = 1_000_000 / 600
PROFILED = 1000


class Engine(NamedTuple):
    """One engine of the load: its chips and its requests."""

    number: int
    chips: int
    requests: int


class Found(NamedTuple):
    """What one engine gave: figures of its requests, its virtual seconds, busy seconds of its chips."""

    ttft: Any
    tpot: Any
    tokens: int
    seconds: float
    busy: float


def setup(chips: int) -> SimulationSetup:
    """An engine of some chips that may hand off to each other."""
    names = [f"chip:{i}" for i in range(chips)]
    facts = tuple(
        RunnerFacts(
            runner=name,
            epoch=1,
            roles=("prefill", "decode"),
            capacities=(CONTEXT,),
            slots=64,
            chunk=2048,
            device=name,
            kv_bytes=131072,
            paged=True,
            page=16,
            pages=20_000,
            rounds=16,
            table=CHIP,
        )
        for name in names
    )
    links = tuple(
        LinkSetup(source=one, destination=other, name="fabric", latency=1e-5, bandwidth=1e11, grade="modelled")
        for one in names
        for other in names
        if one != other
    )
    scheduler = SchedulerSetup(facts=facts, context=CONTEXT, waiting_limit=10**6)
    return SimulationSetup(scheduler=scheduler, links=links)


def prepared(engine: Engine) -> Simulation:
    """A simulation that has not begun."""
    workload = Workload(
        prompt_tokens=PROMPTS,
        output_tokens=ANSWERS,
        rate=RATE * engine.chips,
        requests=engine.requests,
        seed=engine.number,
    )
    return Simulation(setup(engine.chips), make_source(workload, context=CONTEXT))


def run(engine: Engine) -> Found:
    """One engine from its first request to the end of its last one."""
    simulation = prepared(engine)
    simulation.run()
    records = list(simulation.recorder.records.values())
    return Found(
        np.array([item.ttft for item in records], np.float32),
        np.array([item.tpot for item in records if item.tpot is not None], np.float32),
        sum(item.tokens for item in records),
        simulation.now,
        sum(sum(runner.busy.values()) for runner in simulation.runners.values()),
    )


def measured(chips: int, engines: int, requests: int, processes: int) -> dict[str, Any]:
    """Wall time of so many engines, with their figures."""
    each = [requests // engines + (i < requests % engines) for i in range(engines)]
    work = [Engine(i, chips, count) for i, count in enumerate(each) if count]
    began, found = time.perf_counter(), []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in pool.map(run, work, chunksize=4):
            found.append(done)
            if len(found) % 100 == 0:
                say(f"engines: {len(found)} of {len(work)}")
    wall = time.perf_counter() - began
    ttft, tpot = (np.concatenate([getattr(item, name) for item in found]) for name in ("ttft", "tpot"))
    busy = sum(item.busy for item in found) / sum(item.seconds * chips for item in found)
    return {
        "chips": chips * len(work),
        "engines": len(work),
        "processes": processes,
        "requests": requests,
        "tokens": sum(item.tokens for item in found),
        "wall_seconds": round(wall, 2),
        "requests_per_second": round(requests / wall, 1),
        "minutes_per_million": round(1e6 / requests * wall / 60, 2),
        "virtual_seconds": round(max(item.seconds for item in found), 1),
        "utilisation_modelled": round(busy, 3),
        "ttft_ms_modelled": [round(1e3 * float(np.quantile(ttft, q)), 1) for q in (0.5, 0.95)],
        "tpot_ms_modelled": [round(1e3 * float(np.quantile(tpot, q)), 2) for q in (0.5, 0.95)],
    }


def shares(chips: int) -> list[tuple[str, float]]:
    """Share of the time by room and file, of a profile of one engine; what was called is counted where it is."""
    simulation = prepared(Engine(0, chips, PROFILED))
    profile = cProfile.Profile()
    profile.runcall(simulation.run)
    seconds: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        parts = Path(file).parts
        seconds["/".join(parts[-2:]) if "inlay" in parts else "Python itself"] += own
    total = sum(seconds.values())
    return [(name, own / total) for name, own in seconds.most_common(10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chips", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    facts, processes = environment(), len(os.sched_getaffinity(0))
    records, rows = [], []
    for chips in (1, 4):
        part = arguments.requests if chips == 1 else arguments.requests // 10
        engines = max(1, (arguments.chips if chips == 1 else arguments.chips // 10) // chips)
        say(f"{engines} engines of {chips} chips, {part} requests")
        found = measured(chips, engines, part, processes)
        found["where"] = [{"file": name, "share": round(share, 3)} for name, share in shares(chips)]
        records.append(found)
        rows.append(
            [
                f"{found['engines']} engines of {chips}",
                f"{found['requests']:,}",
                f"{found['wall_seconds']:.0f}",
                f"{found['requests_per_second']:,.0f}",
                f"{found['minutes_per_million']:.1f}",
                f"{found['tokens'] / found['wall_seconds']:,.0f}",
                f"{100 * found['utilisation_modelled']:.0f} %",
            ]
        )
    head = ["chips", "requests", "wall s", "requests a second", "minutes a million", "tokens a second", "chips busy (modelled)"]
    where = table(
        ["engines of", *[f"{i + 1}." for i in range(10)]],
        [[str(item["chips"] // item["engines"]), *_shown(item["where"])] for item in records],
    )
    text = (
        f"Goal: {GOAL:,.0f} requests a second (a million in ten minutes), on {processes} processes.\n\n{table(head, rows)}\n\n"
        f"Where the time goes (a profile of {PROFILED:,} requests, which itself slows small functions most):\n\n{where}"
    )
    write_result("simulator_speed", title="Simulator speed", facts=facts, records=records, text=text, folder=arguments.out)


def _shown(where: list[dict[str, Any]]) -> list[str]:
    found = [f"{item['file']} {100 * item['share']:.0f} %" for item in where]
    return [*found, *["-"] * (10 - len(found))]


if __name__ == "__main__":
    main()
