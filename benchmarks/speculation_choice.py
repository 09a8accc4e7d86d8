"""What the scheduler chooses against the best fixed mode, on the virtual clock: the regret of choosing, learning included.

    python benchmarks/speculation_choice.py [--work DIR]

The tables of the demo pair and of a synthetic pair are measured as the engine does at its start (speculation.py has the
deployment); everything after that is simulated by the real scheduler: acceptance is given, and drafts take as long as their
table says or 1.6 times as long, which the scheduler is not told: two cores share their memory. A fixed mode is taken at the
better of two draft lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from measuring import RESULTS, ROOT, environment, say, table, write_result
from speculation import deployment
from synthetic_pair import build_pair

from inlay import api
from inlay.engine.journal import read_start
from inlay.simulator import Simulation, make_source, recorded
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import SchedulerSetup
from inlay.specs.speculation import AUTO, ENUMERATED, FREE, OFF, SYNCHRONOUS
from inlay.specs.workload import Workload

STREAMS = (1, 4)
ACCEPTANCE = (0.45, 0.6, 0.7, 0.8, 0.9)
SLOWER = (1.0, 1.6)
LENGTHS = (2, 5)
FIXED = (SYNCHRONOUS, FREE, ENUMERATED)
ANSWER, ANSWERS = 96, 12


async def measured(target: Path, draft: Path, log: Path) -> SchedulerSetup:
    """The setup of an engine of target and draft runner on a core each, with the tables of its start."""
    async with api.AsyncLLM(deployment(target, draft), event_log=log):
        pass
    found = read_start(log)
    facts = tuple(item for item in found.facts if "draft" not in item.roles or item.device == "b:0")
    return msgspec.structs.replace(found, facts=facts)


def slowed(given: LatencyTable, factor: float) -> LatencyTable:
    """The same at so many times the time on the device."""
    parts = {name: factor * getattr(given, name) for name in ("fixed", "per_row", "per_token", "per_past")}
    return msgspec.structs.replace(given, **parts)


def seconds(setup: SchedulerSetup, mode: str, drafts: int, *, streams: int, acceptance: float, slower: float) -> float:
    """Virtual seconds of all answers."""
    speculation = msgspec.structs.replace(setup.speculation, mode=mode, drafts=drafts)
    whole = recorded(msgspec.structs.replace(setup, speculation=speculation), acceptance=acceptance)
    load = Workload(prompt_tokens="24", output_tokens=str(ANSWER), clients=streams, requests=ANSWERS * streams)
    simulation = Simulation(whole, make_source(load, context=setup.context))
    for runner in simulation.runners.values():
        if "draft" in runner.facts.roles:
            runner.table = slowed(runner.table, slower)
    simulation.run()
    return simulation.now


def row(setup: SchedulerSetup, **case: Any) -> dict[str, Any]:
    """One line of the table: speeds as ratios to plain decoding."""
    plain = seconds(setup, OFF, 1, **case)
    fixed = {mode: max(plain / seconds(setup, mode, drafts, **case) for drafts in LENGTHS) for mode in FIXED}
    chosen = plain / seconds(setup, AUTO, setup.speculation.drafts, **case)
    return {**case, "fixed": fixed, "chosen": chosen, "regret": max(1.0, *fixed.values()) / chosen - 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, help="where the synthetic pair is kept between runs")
    given = parser.parse_args()
    facts = environment() | {"grade": "modelled"}
    records: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.work or Path(scratch)) / "pair-0.08"
        kept = folder / "target", folder / "draft"
        synthetic = kept if (kept[1] / "pair.json").is_file() else build_pair(folder, factor=0.08)
        pairs = {"demo pair": (ROOT / "demo" / "target", ROOT / "demo" / "draft"), "synthetic pair": synthetic}
        for name, (target, draft) in pairs.items():
            say(name)
            setup = asyncio.run(measured(target, draft, Path(scratch) / f"{name}.jsonl"))
            records[name] = [
                row(setup, streams=streams, acceptance=acceptance, slower=slower)
                for streams in STREAMS
                for acceptance in ACCEPTANCE
                for slower in SLOWER
            ]
    parts = [
        f"Tokens a second over those of plain decoding; {ANSWERS} answers of {ANSWER} tokens a stream, from an engine\n"
        "that has seen nothing yet, so that what it learns is paid for in these figures. *Slower*: drafts take so many times\n"
        "as long as the scheduler's table says. Its constants were chosen with a look at this table: it is somewhat kind."
    ]
    for name, rows in records.items():
        lines = [
            [
                str(item["streams"]),
                f"{item['acceptance']:.2f}",
                f"{item['slower']:.1f}",
                *(f"{item['fixed'][mode]:.2f}" for mode in FIXED),
                f"{item['chosen']:.2f}",
                f"{100 * item['regret']:.0f} %",
            ]
            for item in rows
        ]
        heads = ["streams", "acceptance", "slower", "waited for", "free-running", "enumerated", "chosen", "regret"]
        least = min(item["chosen"] for item in rows)
        parts.append(f"## {name}\n\n{table(heads, lines)}\n\nLeast of what was chosen: {least:.2f} of plain (goal 0.98).")
    write_result(
        "speculation_choice",
        title="Choosing how to speculate, on the virtual clock",
        facts=facts,
        records=records,
        text="\n\n".join(parts),
        folder=RESULTS,
    )


if __name__ == "__main__":
    main()
