"""Where the time of a decode step goes in a split deployment at one stream, from the engine's own event log.

    python benchmarks/decode_share.py [--prefill openvino] [--decode onnxruntime] [--requests N] [--out DIR]

One period is from the end of a decode batch to the end of the next. It is cut at three marks that the log holds on one
clock: the engine's step that takes the answer, the device's start, the device's end.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from contestants import EngineContestant
from measuring import RESULTS, environment, say, table, write_result
from serving import MODEL, NEW_TOKENS, Load

from inlay.engine.journal import read_journal
from inlay.specs.device import BatchDone, Submit
from inlay.specs.schedule import Answered, Send

LOADS = (Load(1, 128), Load(1, 400))
PARTS = ("period", "device", "device to engine", "engine to device")


def periods(path: Path) -> list[dict[str, float]]:
    """Seconds by part for every decode batch that follows another of the same request."""
    decodes: set[int] = set()
    done: list[tuple[float, BatchDone]] = []
    for entry in read_journal(path).entries:
        match entry.event:
            case Answered(message=BatchDone() as message) if message.batch in decodes:
                done.append((entry.now, message))
            case _:
                pass
        for command in entry.commands:
            if isinstance(command, Send) and isinstance(command.message, Submit) and command.message.phase == "decode":
                decodes.add(command.message.batch)
    return [
        {
            "period": later.ended - earlier.ended,
            "device": later.ended - later.started,
            "device to engine": seen - earlier.ended,
            "engine to device": later.started - seen,
        }
        for (seen, earlier), (_, later) in pairwise(done)
        if later.batch == earlier.batch + 1
    ]


async def ask(contestant: EngineContestant, load: Load, requests: int) -> list[float]:
    """Milliseconds per token after the first as the client saw them, one a request."""
    seen = []
    for number in range(requests):
        turn = await contestant.take_turn(load.prompts(number), NEW_TOKENS)
        seen.append(1e3 * (turn.last - turn.first) / (NEW_TOKENS - 1))
    return seen


def measure(places: Sequence[str], load: Load, requests: int) -> dict[str, Any]:
    """One deployment, one load: medians in milliseconds by part."""
    with tempfile.TemporaryDirectory(prefix="inlay-decode-share-") as directory:
        path = Path(directory) / "events.jsonl"
        contestant = EngineContestant.start(MODEL, places, rival="", cores=2, event_log=path)

        async def work() -> list[float]:
            try:
                await ask(contestant, load, 2)
                return await ask(contestant, load, requests)
            finally:
                await contestant.close()

        seen = asyncio.run(work())
        found = periods(path)
    medians = {name: round(1e3 * statistics.median(item[name] for item in found), 4) for name in PARTS}
    share = round(statistics.median(item["device"] / item["period"] for item in found), 4)
    client = round(statistics.median(seen), 4)
    return {"load": str(load), "periods": len(found), **medians, "client": client, "device_share": share}


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefill", default="openvino")
    parser.add_argument("--decode", default="onnxruntime")
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    facts = environment()
    pairs = ((arguments.prefill, arguments.decode), (arguments.decode, arguments.prefill))
    records = []
    for first, second in pairs:
        for load in LOADS:
            say(f"{first} → {second}, {load}")
            found = measure([f"cpu:0/{first}", f"cpu:1/{second}"], load, arguments.requests)
            records.append({"deployment": f"{first} → {second}", **found})
    rows = [
        [f"{item['deployment']}, {item['load']}"]
        + [f"{item[name]:.3f}" for name in PARTS]
        + [f"{item['client']:.3f}", f"{100 * item['device_share']:.0f} %"]
        for item in records
    ]
    text = (
        "Medians in milliseconds per decode step. *device*: from the batch's start to its end in the device process, "
        "bindings, KV rows and sampler included. *device to engine*: from there until the engine's scheduler takes the answer. "
        "*engine to device*: from there until the device begins the next batch. *client*: per token after the first, as the "
        "client saw it.\n\n" + table(("deployment", *PARTS, "client", "device share"), rows)
    )
    write_result("decode_share", title="Decode share", facts=facts, records=records, text=text, folder=arguments.out)


if __name__ == "__main__":
    main()
