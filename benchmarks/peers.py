"""Our engine beside Hugging Face `generate`, OpenVINO GenAI and llama.cpp: one run, the same weights, cores and precision.

    make environment-peers
    python benchmarks/peers.py [--rounds N] [--quick] [--only MODEL] [--cores 1|2] [--once] [--out DIR]

By model (the demo target; a random Llama of about 96 million parameters), cores (1, 2) and precision (float32; 8 bit) all
contestants are started, each in processes of its own on the same cores, and take turns in random order; a ratio is taken within
its round. Loads: 1, 4, 8 and 16 requests at once with ragged prompts, 64 new tokens each; one prompt of 512 tokens and 1 new
token. Ours are end to end, by a client of the engine. 8 bit is compared with float32 by the greedy next token after prefixes of
one text. The last run of what `--only` and `--cores` leave out is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, as_spread, environment, kept_records, ratios, say, show, spread, table, write_result
from opponents import Opponent, PeerContestant, ServedContestant, gguf_file
from quiet import LIMIT, TRIES, quietly
from step_time import build_model

from inlay.models import read_tokenizer

DEMO = ROOT / "demo" / "target"
TEXT = ROOT / "docs" / "guides" / "serve-a-model.md"
PRECISIONS = ("float32", "8 bit")
RUNNERS = (("openvino", "paged"), ("openvino", "extend"), ("onnxruntime", "extend"))
PEERS_PYTHON = Path(os.environ.get("INLAY_ENVIRONMENTS", ROOT / ".environments")) / "peers" / "bin" / "python"
NEW_TOKENS = 64
PREFILL = 512
VOCABULARY = range(3, 4096)
STREAMS = (1, 4, 8, 16)
RAGGED = (32, 256)
PROBES = range(16, 256, 4)


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests at once with prompts of random ids, lengths within bounds; new tokens of each."""

    streams: int
    lengths: tuple[int, int]
    new_tokens: int

    def __str__(self) -> str:
        return f"prompt of {self.lengths[0]}" if self.new_tokens == 1 else f"{self.streams} at once"

    def prompts(self, number: int) -> list[tuple[int, ...]]:
        """The same for all contestants of a round, others in the next."""
        rng = random.Random(f"{number} {self}")
        return [tuple(rng.choices(VOCABULARY, k=rng.randint(*self.lengths))) for _ in range(self.streams)]


LOADS = (
    *(Load(streams, (128, 128) if streams == 1 else RAGGED, NEW_TOKENS) for streams in STREAMS),
    Load(1, (PREFILL, PREFILL), 1),
)


@dataclass(slots=True)
class Series:
    """(seconds to the first token, to the last of all) of each round, and how many turns stayed under foreign load."""

    turns: list[tuple[float, float]] = field(default_factory=list)
    noisy: int = 0

    def figures(self, load: Load) -> dict[str, list[float]]:
        """By what is counted, one figure a round."""
        if load.new_tokens == 1:
            return {"prefill": [load.lengths[0] / first for first, _ in self.turns]}
        found = {str(load): [load.streams * load.new_tokens / last for _, last in self.turns]}
        if load.streams == 1:
            found["decode"] = [(load.new_tokens - 1) / (last - first) for first, last in self.turns]
        return found


async def race(opponents: Sequence[Opponent], *, rounds: int, once: bool) -> dict[str, dict[Load, Series]]:
    """One warming round, then those that count; by name and load."""
    found = {item.name: {load: Series() for load in LOADS} for item in opponents}
    rng = random.Random(3)
    for number in range(rounds + 1):
        begin = time.perf_counter()
        for load in LOADS:
            prompts = load.prompts(number)
            for item in rng.sample(opponents, len(opponents)):
                series, turn = found[item.name][load], partial(item.take_turn, prompts, load.new_tokens)
                if number == 0:
                    await turn()
                elif once:
                    series.turns.append(await turn())
                else:
                    seen = await quietly(turn, pids=item.processes())
                    series.turns.append(seen.result)
                    series.noisy += seen.noisy
        say(f"round {number} of {rounds}: {time.perf_counter() - begin:.1f} s")
    return found


async def group(model: str, folder: Path, cores: Sequence[int], precision: str, options: Any) -> list[dict[str, Any]]:
    """Start everybody of one group, race, probe, end everybody; a record for each."""
    kind = "int8" if precision == "8 bit" else "float32"
    python, threads = options.peers, len(cores)
    opponents: list[Opponent] = []
    try:
        for backend, runner in RUNNERS:
            say(f"{model}, {threads} cores, {precision}: starting {backend}, {runner}")
            opponents.append(await asyncio.to_thread(ServedContestant.start, folder, backend, kind, runner=runner, cores=cores))
        files = Path(options.work)
        if precision == "float32":
            opponents.append(PeerContestant(python, "hugging-face", folder, "float32", cores=cores))
            written = {"llama.cpp": "f32", "genai": "f16"}  # GenAI reads no float32 from GGUF
        else:
            written = {"llama.cpp": "q8_0", "genai": "q8_0"}
        for name, type_name in written.items():
            file = gguf_file(python, folder, files / f"{folder.name}-{type_name}.gguf", type_name)
            opponents.append(PeerContestant(python, name, file, type_name, cores=cores))
        found = await race(opponents, rounds=options.rounds, once=options.once)
        told = {item.name: await item.probe(prefixes(folder)) for item in opponents}
    finally:
        for item in opponents:
            await item.close()
    facts = {"model": model, "cores": threads, "precision": precision, "group": f"{model}, {threads}, {precision}"}
    peers = [item.name for item in opponents if isinstance(item, PeerContestant)]
    figures = {name: merged(series) for name, series in found.items()}
    return [
        facts | record(item, figures, peers, found[item.name]) | {"told": told[item.name], "version": item.version}
        for item in opponents
    ]


def merged(series: dict[Load, Series]) -> dict[str, list[float]]:
    """All figures of one contestant."""
    return {name: values for load, item in series.items() for name, values in item.figures(load).items()}


def record(
    item: Opponent, figures: dict[str, dict[str, list[float]]], peers: Sequence[str], series: dict[Load, Series]
) -> dict[str, Any]:
    """Medians of one contestant in tokens a second, and what they are of the best peer's, which is named."""
    entry: dict[str, Any] = {"contestant": item.name, "ours": item.name not in peers, "figures": {}}
    for name, values in figures[item.name].items():
        best = max(peers, key=lambda peer: statistics.median(figures[peer][name]))
        entry["figures"][name] = {
            "tokens_per_second": spread(values),
            "of_best_peer": ratios(values, figures[best][name]),
            "best_peer": best,
            "rounds": [round(value, 2) for value in values],
        }
    entry["turns_under_foreign_load"] = sum(part.noisy for part in series.values())
    return entry


def prefixes(folder: Path) -> list[tuple[int, ...]]:
    """Of one text of ours, as the model's own tokenizer reads it."""
    tokens = read_tokenizer(folder).encode(TEXT.read_text())
    return [tuple(tokens[:end]) for end in PROBES]


def compare(records: Sequence[dict[str, Any]]) -> None:
    """Write into each record how far its next tokens are from Hugging Face's in float32 on the same model."""
    truths = {
        entry["model"]: entry["told"] for entry in records if entry["contestant"].startswith("Hugging Face") and entry["told"]
    }
    for entry in records:
        pairs = [
            (ours, truth) for ours, truth in zip(entry["told"] or [], truths.get(entry["model"]) or [], strict=False) if ours
        ]
        if not pairs:
            continue
        same = [(ours[1], truth[1]) for ours, truth in pairs if ours[0] == truth[0]]
        entry["divergence"] = {
            "positions": len(pairs),
            "same_greedy_token": round(len(same) / len(pairs), 4),
            "mean_error_of_log_probability": round(statistics.mean(abs(a - b) for a, b in same), 5) if same else None,
        }


COLUMNS = ("decode", *(f"{streams} at once" for streams in STREAMS), "prefill")
GOALS = {
    "float32": {"decode": 1.0, "8 at once": 1.3, "prefill": 2.0},
    "8 bit": {"decode": 1.0, "8 at once": 1.6, "prefill": 2.0},
}


def page(records: Sequence[dict[str, Any]]) -> str:
    """A table a group, our figures with their ratio to the best peer's; goals missed; what the setting is."""
    parts = [
        "Tokens a second. *decode*: one request, after its first token (prompt 128); *n at once*: "
        f"new tokens over the whole turn, prompts of {RAGGED[0]} to {RAGGED[1]} tokens included (1: of 128), {NEW_TOKENS} "
        f"new tokens each; *prefill*: a prompt of {PREFILL} until its first token. In brackets: of the best peer's figure in "
        "the same round, and which peer that is. Ours are end to end, every process on the same cores; a peer's times are "
        "taken inside its own process. Ours speculate on nothing. *paged*: KV in pages, prompts and decodes in one batch, by "
        "OpenVINO's paged attention, which GenAI runs on too; *extend*: KV in slots. Hugging Face pads "
        "ragged prompts. GenAI reads no float32 from GGUF: its row has float16 "
        "weights (half the bytes) and float32 arithmetic. *same token*, *log-p*: the share of "
        f"{len(PROBES)} prefixes of a text after which the greedy token is that of Hugging Face in float32, and the mean error "
        "of its log-probability where it is (llama.cpp does not tell of tokens that end within a character). int8 of ours: a "
        "scale for each row of weights and each row or group of activations; q8_0: for each 32. Unless `--once` was given, a "
        f"turn during which others used over {LIMIT} of a core was taken again, up to {TRIES} times."
    ]
    for name in dict.fromkeys(entry["group"] for entry in records):
        mine = [entry for entry in records if entry["group"] == name]
        rows = []
        for entry in mine:
            cells = [cell(entry, column) for column in COLUMNS]
            told = entry.get("divergence")
            error = (
                ""
                if not told or told["mean_error_of_log_probability"] is None
                else f"{told['mean_error_of_log_probability']:.3f}"
            )
            rows.append([entry["contestant"], *cells, f"{told['same_greedy_token']:.2f}" if told else "", error])
        first = mine[0]
        rounds = len(first["figures"]["decode"]["rounds"])
        title = (
            f"{first['model']}, {first['precision']}, {first['cores']} core{'s' if first['cores'] > 1 else ''}, {rounds} rounds"
        )
        noisy = sum(entry["turns_under_foreign_load"] for entry in mine)
        note = f"\n\n{noisy} turns stayed under foreign load." if noisy else ""
        parts.append(f"## {title}\n\n{table(['contestant', *COLUMNS, 'same token', 'log-p'], rows)}{note}")
    parts.append("## Goals\n\n" + "\n".join(goals(records)))
    return "\n\n".join(parts)


def cell(entry: dict[str, Any], column: str) -> str:
    """A figure, with its ratio where it is ours."""
    found = entry["figures"][column]
    text = f"{as_spread(found['tokens_per_second']).median:.1f}"
    return f"{text} ({show(as_spread(found['of_best_peer']))} {found['best_peer'].split()[0]})" if entry["ours"] else text


def goals(records: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each goal of each group: the better of our runners against the best peer."""
    lines = []
    for name in dict.fromkeys(entry["group"] for entry in records):
        ours = [entry for entry in records if entry["group"] == name and entry["ours"]]
        for column, goal in GOALS[ours[0]["precision"]].items():
            best = max(ours, key=lambda entry: as_spread(entry["figures"][column]["of_best_peer"]).median)
            found = best["figures"][column]
            ratio = as_spread(found["of_best_peer"])
            verdict = "met" if ratio.median >= goal else "**missed**"
            lines.append(
                f"- {name}: {column} {show(ratio)} of {found['best_peer']} by {best['contestant']}, goal {goal}: {verdict}."
            )
    return lines


async def run(options: Any, facts: dict[str, Any]) -> None:
    """Every group asked for, written after each."""
    available = sorted(os.sched_getaffinity(0))
    models = {"demo target": DEMO, "random Llama": Path(options.work) / "llama"}
    chosen = [name for name in models if options.only in ("", name)]
    if "random Llama" in chosen and not models["random Llama"].exists():
        say("making the random Llama")
        build_model(models["random Llama"])
    cores = [available[:count] for count in ((1, 2) if options.cores == 0 else (options.cores,)) if count <= len(available)]
    names = [f"{model}, {len(some)}, {precision}" for model in chosen for some in cores for precision in PRECISIONS]
    kept, made = kept_records(options.out / "peers.json", "group", names), []
    for model in chosen:
        for some in cores:
            for precision in PRECISIONS:
                made += await group(model, models[model], some, precision, options)
                records = sorted([*kept, *made], key=lambda entry: entry["group"])
                compare(records)
                text = page(records)
                write_result("peers", title="Beside other engines", facts=facts, records=records, text=text, folder=options.out)


def main() -> None:
    """Parses, races."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="two rounds, the demo target on one core")
    parser.add_argument("--only", default="", help="'demo target' or 'random Llama'")
    parser.add_argument("--cores", type=int, default=0, choices=(0, 1, 2), help="1 or 2; both where not given")
    parser.add_argument("--once", action="store_true", help="take no turn again, also under foreign load: a trial")
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON, help="the Python of `make environment-peers`")
    parser.add_argument("--work", type=Path, help="keep models and converted files in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.peers.exists():
        raise SystemExit(f"error: {options.peers} is not there\nhint: make environment-peers")
    if options.quick:
        options.rounds, options.only, options.cores = 2, "demo target", 1
    facts = environment() | {"rounds": options.rounds, "new_tokens": NEW_TOKENS, "turns_taken_once": options.once}
    with tempfile.TemporaryDirectory(prefix="inlay-peers-") as directory:
        options.work = options.work or Path(directory)
        asyncio.run(run(options, facts))


if __name__ == "__main__":
    main()
