"""Tokens a second of one stream and of eight, through the engine, beside Hugging Face `generate` in the same run.

    python benchmarks/serving.py [--rounds N] [--quick] [--out DIR]

Each backend alone (its device on one core) and split over two (prompts on one, tokens on the other; both cores), with
the demo target in float32, greedy, 64 new tokens. All contestants are started once; each round every one of them has
one turn at every load, in random order, and ratios are taken within the round. No figure is asserted on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from contestants import Contestant, EngineContestant, HuggingFaceContestant, Turn, hugging_face_name
from measuring import RESULTS, ROOT, environment, ratios, say, show, spread, table, write_result
from quiet import LIMIT, TRIES, cpu_seconds, quietly

MODEL = ROOT / "demo" / "target"
NEW_TOKENS = 64
VOCABULARY = range(3, 4096)
ALONE = ("openvino", "onnxruntime", "reference", "contrary")
SPLIT = (("openvino", "onnxruntime"), ("onnxruntime", "openvino"))
IDLE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at once with prompts of so many random ids."""

    streams: int
    prompt: int

    def __str__(self) -> str:
        return f"{self.streams} stream{'s' if self.streams > 1 else ''}, prompt {self.prompt}"

    def prompts(self, round_number: int) -> list[tuple[int, ...]]:
        """The same for all contestants of a round, others in the next."""
        rng = random.Random(f"{round_number} {self}")
        return [tuple(rng.choices(VOCABULARY, k=self.prompt)) for _ in range(self.streams)]


LOADS = tuple(Load(streams, prompt) for streams in (1, 8) for prompt in (128, 400))


@dataclass(slots=True)
class Series:
    """All turns of one contestant at one load, one a round; CPU seconds of its processes; turns under foreign load."""

    turns: list[Turn] = field(default_factory=list)
    cpu: float = 0.0
    noisy: int = 0

    def rates(self) -> list[float]:
        return [turn.rate for turn in self.turns]


Found = dict[Load, dict[str, Series]]


def start_all(alone: Sequence[str], split: Sequence[tuple[str, ...]]) -> list[Contestant]:
    """Every contestant, running and idle."""
    one, two = hugging_face_name(1), hugging_face_name(2)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("error: this benchmark needs 2 cores")
    found: list[Contestant] = []
    for name in alone:
        say(f"starting {name}")
        found.append(EngineContestant.start(MODEL, [f"cpu:0/{name}"], rival=one, cores=1))
    for first, second in split:
        say(f"starting {first} → {second}")
        found.append(EngineContestant.start(MODEL, [f"cpu:0/{first}", f"cpu:1/{second}"], rival=two, cores=2))
    for count in (1, 2):
        say(f"starting {hugging_face_name(count)}")
        found.append(HuggingFaceContestant(MODEL, cores=cores[:count]))
    return found


async def race(contestants: Sequence[Contestant], *, rounds: int) -> Found:
    """One warming round, then `rounds` that count."""
    found: Found = {load: {item.name: Series() for item in contestants} for load in LOADS}
    rng = random.Random(3)
    for number in range(rounds + 1):
        begin = time.perf_counter()
        for load in LOADS:
            prompts = load.prompts(number)
            for item in rng.sample(contestants, len(contestants)):
                if number == 0:
                    await item.take_turn(prompts, NEW_TOKENS)
                    continue
                seen = await quietly(partial(item.take_turn, prompts, NEW_TOKENS), pids=item.processes())
                series = found[load][item.name]
                series.turns.append(seen.result)
                series.cpu += seen.cpu
                series.noisy += seen.noisy
        say(f"round {number} of {rounds}: {time.perf_counter() - begin:.1f} s")
    return found


async def idle_share(contestants: Sequence[Contestant]) -> float:
    """Cores used by all contestants together while nobody has a turn."""
    pids = [pid for item in contestants for pid in item.processes()]
    before = cpu_seconds(pids)
    await asyncio.sleep(IDLE_SECONDS)
    return (cpu_seconds(pids) - before) / IDLE_SECONDS


async def run(contestants: list[Contestant], *, rounds: int) -> tuple[Found, float]:
    """The race and the idle check; everything is ended whatever happens."""
    try:
        found = await race(contestants, rounds=rounds)
        return found, await idle_share(contestants)
    finally:
        for item in contestants:
            await item.close()


def record(load: Load, item: Contestant, found: Found) -> dict[str, Any]:
    """One row: medians over the rounds and ratios to both rows of Hugging Face."""
    series = found[load][item.name]
    rivals = {count: found[load][hugging_face_name(count)] for count in (1, 2)}
    steps = [(turn.last - turn.first) / (NEW_TOKENS - 1) for turn in series.turns]
    same = [
        ours == theirs
        for turn, rival in zip(series.turns, rivals[1].turns, strict=True)
        for ours, theirs in zip(turn.tokens, rival.tokens, strict=True)
    ]
    entry: dict[str, Any] = {
        "load": str(load),
        "streams": load.streams,
        "prompt_tokens": load.prompt,
        "contestant": item.name,
        "cores": item.cores,
        "tokens_per_second": spread(series.rates()),
        "first_token_ms": spread([1e3 * turn.first for turn in series.turns]),
        "ms_per_token_after_first": spread([1e3 * step for step in steps]),
        "turns_under_foreign_load": series.noisy,
        "cores_busy": round(series.cpu / sum(turn.last for turn in series.turns), 2),
        "same_tokens_as_hugging_face": round(statistics.mean(same), 4),
    }
    for count, rival in rivals.items():
        entry[f"times_hugging_face_{count}"] = ratios(series.rates(), rival.rates())
    if any(turn.busy for turn in series.turns):
        entry["device_seconds_share"] = round(statistics.median(turn.busy / turn.last for turn in series.turns), 3)
        outside = [1e3 * (turn.last - turn.busy) / NEW_TOKENS for turn in series.turns]
        if load.streams == 1:
            entry["ms_outside_devices_per_token"] = round(statistics.median(outside), 3)
    entry["rounds"] = [{"tokens_per_second": round(turn.rate, 2), "first": round(turn.first, 5)} for turn in series.turns]
    return entry


HEAD = (
    "contestant",
    "tokens/s",
    "of HF 1 thread",
    "of HF 2 threads",
    "first token ms",
    "ms/token",
    "cores busy",
    "same tokens",
)


def page(records: Sequence[dict[str, Any]], contestants: Sequence[Contestant], *, rounds: int, idle: float) -> str:
    """The tables, one a load, and where we lose."""
    noisy = sum(entry["turns_under_foreign_load"] for entry in records)
    parts = [
        f"Demo target (9.25 million parameters, float32), greedy, {NEW_TOKENS} new tokens, prompts of random ids, "
        f"{rounds} rounds. An engine's device is pinned to one core; a split has two devices and so both cores; the engine "
        "process itself is not pinned and may use the other core: *cores busy* is what all its processes used (Hugging Face: "
        "the one process). Compare a backend alone with HF 1 thread, a split with HF 2 threads. Engine times are a client's "
        "over the engine's protocol; Hugging Face's are taken inside its own process, its streams one batch of equal lengths. "
        "*tokens/s* counts new tokens over the whole request, prompt included; *ms/token* after the first. *same tokens*: "
        "share of streams that equal HF 1 thread's to the last token. `contrary` and `reference` are teaching backends. "
        f"A turn during which other programs used over {LIMIT} of a core was taken again, up to {TRIES} times: two threads on "
        f"two cores suffer most from them; {noisy} of the {len(records) * rounds} turns that count stayed under such load. "
        f"All contestants together used {100 * idle:.1f} % of a core while nobody had a turn."
    ]
    for load in LOADS:
        rows = []
        for entry in records:
            if entry["load"] == str(load):
                figures = [
                    show(entry["tokens_per_second"], 1),
                    show(entry["times_hugging_face_1"]),
                    show(entry["times_hugging_face_2"]),
                    f"{entry['first_token_ms'].median:.1f}",
                    f"{entry['ms_per_token_after_first'].median:.2f}",
                    f"{entry['cores_busy']:.2f}",
                    f"{100 * entry['same_tokens_as_hugging_face']:.0f} %",
                ]
                rows.append([entry["contestant"], *figures])
        parts.append(f"## {load}\n\n{table(HEAD, rows)}")
    parts.append("## Where we lose\n\n" + "\n".join(losses(records, contestants)))
    return "\n\n".join(parts)


def losses(records: Sequence[dict[str, Any]], contestants: Sequence[Contestant]) -> list[str]:
    """A plain sentence for each row that is slower than Hugging Face with as many cores, or with fewer."""
    cores = {item.name: item.cores for item in contestants}
    lines = []
    for entry in records:
        name = str(entry["contestant"])
        if not name.startswith("inlay"):
            continue
        for count in range(1, cores[name] + 1):
            found = entry[f"times_hugging_face_{count}"]
            if found.median < 1:
                sure = "" if found.high < 1 else ", within the noise"
                lines.append(
                    f"- {entry['load']}: {name} gives {show(found)} of the tokens/s of {hugging_face_name(count)}{sure}."
                )
    return lines or ["Nowhere against Hugging Face with as many cores or fewer, at these loads on this machine."]


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="two rounds, without the teaching backends")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    facts = environment()
    rounds = 2 if arguments.quick else arguments.rounds
    contestants = start_all(ALONE[:2] if arguments.quick else ALONE, SPLIT)
    found, idle = asyncio.run(run(contestants, rounds=rounds))
    records = [record(load, item, found) for load in LOADS for item in contestants]
    text = page(records, contestants, rounds=rounds, idle=idle)
    facts |= {"rounds": rounds, "new_tokens": NEW_TOKENS, "cores_used_while_idle": round(idle, 4)}
    write_result("serving", title="Serving", facts=facts, records=records, text=text, folder=arguments.out)


if __name__ == "__main__":
    main()
