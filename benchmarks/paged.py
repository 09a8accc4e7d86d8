"""Time of a step of the paged runner beside runners over slots: decodes, verifies, prompt chunks, and all of them together.

    python benchmarks/paged.py [--rounds N] [--quick] [--precision float32|int8] [--out DIR]

In one process on one core with one thread each, taking turns; a random-weight Llama of about 96 million parameters, made in a
temporary folder, and the demo target. Pages lie in no order. The paged runner takes each batch in one call; a runner over
slots takes one for each width in it. No processes, messages or prompts are in it.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from measuring import RESULTS, environment, ratios, say, show, spread, table, write_result
from quiet import LIMIT, PAUSE_SECONDS, TRIES, Watch
from step_time import DEMO, build_model
from steppers import SPREAD, TOKEN, RunnerStepper

from inlay import api
from inlay.engine.paged import PagedRunner
from inlay.orchestrator.compiling import ensure_lowered
from inlay.runtime import load_region
from inlay.specs.device import BatchDone, Row, Submit
from inlay.specs.precision import PRECISIONS
from inlay.specs.sampling import Sampling
from inlay.specs.stage import PagedShape

GREEDY = Sampling(temperature=0.0)
SEQUENCES = 8
Batch = tuple[tuple[int, int], ...]
"""(past length, new tokens) of each row."""


class Contestant(Protocol):
    """Who runs batches of ragged rows."""

    name: str

    def run(self, batch: Batch) -> None:
        """All of it, sampled at the end of each row."""


class Slots:
    """A runner over slots: one call for each width."""

    def __init__(self, folder: Path, backend: str, *, context: int, precision: str) -> None:
        self.name = f"extend {backend}"
        place = backend if precision == "float32" else f"{backend}:{precision}"
        self._stepper = RunnerStepper(folder, place, context=context, slots=SEQUENCES)

    def run(self, batch: Batch) -> None:
        """See Contestant."""
        for width in sorted({new for _, new in batch}):
            chosen = [(slot, past) for slot, (past, new) in enumerate(batch) if new == width]
            self._stepper.run(chosen, width=width)


class Pages:
    """The paged runner: one call."""

    def __init__(self, folder: Path, backend: str, *, context: int, precision: str) -> None:
        self.name = f"paged {backend}"
        wanted = api.deployment(folder, roles=[f"prefill,decode=cpu:0/{backend}"], context=context, slots=SEQUENCES)
        (role,) = wanted.roles
        region = msgspec.structs.replace(role.regions[0], runner="paged", precision=PRECISIONS[precision])
        wanted = msgspec.structs.replace(wanted, roles=(msgspec.structs.replace(role, regions=(region,)),))
        (lowered,) = ensure_lowered(wanted, progress=lambda text: None).values()
        loaded = load_region(lowered.directory, weights=lowered.weights, backend=backend, threads=1, options={})
        self._shape = PagedShape(stage=loaded.stage, page=loaded.manifest.page)
        each = -(-max(wanted.capacities) // self._shape.page)
        self._runner = PagedRunner(loaded.executable, self._shape, pages=SEQUENCES * each)
        pages = [int(page) for page in np.random.default_rng(2).permutation(SEQUENCES * each)]
        self._tables = [tuple(pages[index * each : (index + 1) * each]) for index in range(SEQUENCES)]
        self._fill(each * self._shape.page)

    def run(self, batch: Batch) -> None:
        """See Contestant."""
        rows = tuple(
            Row(
                sequence=index, slot=index, tokens=(TOKEN,) * new, past_length=past, sample=GREEDY,
                pages=self._tables[index][: -(-(past + new) // self._shape.page)],
            )
            for index, (past, new) in enumerate(batch)
        )  # fmt: skip
        self._runner.submit(Submit(batch=1, phase="decode", capacity=0, first=0, count=0, width=0, rows=rows))
        outcome = self._runner.poll()
        if not isinstance(outcome, BatchDone):
            raise RuntimeError(f"{self.name}: {outcome}")

    def _fill(self, rows: int) -> None:
        """Random keys and values everywhere, as in a Stepper."""
        rng = np.random.default_rng(1)
        for place in self._tables:
            layers = []
            for item in self._shape.stage.layers:
                keys = rng.standard_normal((rows, item.key_heads, item.key_dim), np.float32) * SPREAD
                layers.append((keys, rng.standard_normal((rows, item.value_heads, item.value_dim), np.float32) * SPREAD))
            self._runner.import_kv(place, 0, layers)


def batches(context: int) -> dict[str, Batch]:
    """What is run, by name; only what the context holds."""
    found: dict[str, Batch] = {}
    for count in (1, 4, 8):
        for past in (128, 512, 2048):
            found[f"{count} decodes after {past}"] = ((past - 1, 1),) * count
    found["1 verify of 5 after 512"] = ((512, 5),)
    found["4 verifies of 5 after 512"] = ((512, 5),) * 4
    for new in (128, 512):
        found[f"prompt of {new}"] = ((0, new),)
    found["chunk of 256 after 1024"] = ((1024, 256),)
    found["chunk of 128 and 7 decodes after 512"] = ((0, 128), *((511, 1),) * 7)
    found["chunk of 256 after 512 and 7 decodes after 512"] = ((512, 256), *((511, 1),) * 7)
    found["4 verifies of 5 and 4 decodes after 512"] = (*((512, 5),) * 4, *((511, 1),) * 4)
    return {name: batch for name, batch in found.items() if max(past + new for past, new in batch) <= context}


def take_turns(contestants: Sequence[Contestant], batch: Batch, *, tries: int) -> dict[str, float]:
    """Seconds of one run each, the better of two after a warm one; taken again while other programs use the machine."""
    found: dict[str, float] = {}
    for attempt in range(tries):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        watch = Watch()
        for item in random.sample(contestants, len(contestants)):
            item.run(batch)
            times = []
            for _ in range(2):
                begin = time.perf_counter()
                item.run(batch)
                times.append(time.perf_counter() - begin)
            found[item.name] = min(times)
        if watch.read()[1] <= LIMIT:
            break
    return found


def compare(folder: Path, model: str, *, context: int, rounds: int, precision: str, tries: int = TRIES) -> list[dict[str, Any]]:
    """Load everybody, race, and one record for each batch and contestant."""
    everywhere = os.sched_getaffinity(0)
    say(f"{model}: lowering and loading")
    contestants: list[Contestant] = [Pages(folder, "openvino", context=context, precision=precision)]
    contestants += [Slots(folder, name, context=context, precision=precision) for name in ("openvino", "onnxruntime")]
    os.sched_setaffinity(0, {min(everywhere)})
    series: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        for name, batch in batches(context).items():
            for who, seconds in take_turns(contestants, batch, tries=tries).items():
                series.setdefault(name, {}).setdefault(who, []).append(seconds)
        say(f"round {number + 1} of {rounds}")
    os.sched_setaffinity(0, everywhere)
    records = []
    for name, found in series.items():
        ours = found[contestants[0].name]
        for who, theirs in found.items():
            entry = {"model": model, "batch": name, "contestant": who, "ms": spread([1e3 * item for item in theirs])}
            records.append({**entry, "speed_of_paged": ratios(theirs, ours)})
    return records


def page(records: Sequence[dict[str, Any]], *, rounds: int, precision: str) -> str:
    """A table a model."""
    parts = [
        f"One thread on one core, {precision}, {rounds} rounds in turns. *times* is the paged runner's speed in units of the "
        "other's, round by round: above 1 it is faster. A runner over slots runs a batch of several widths in several calls, "
        "and its attention goes over whole buckets; the paged one goes over pages of 32 tokens. Caches hold random numbers."
    ]
    for model in dict.fromkeys(entry["model"] for entry in records):
        rows = []
        mine = [entry for entry in records if entry["model"] == model]
        for name in dict.fromkeys(entry["batch"] for entry in mine):
            line = {entry["contestant"]: entry for entry in mine if entry["batch"] == name}
            row = [name, f"{line['paged openvino']['ms'].median:.2f}"]
            for other in ("extend openvino", "extend onnxruntime"):
                row += [f"{line[other]['ms'].median:.2f}", show(line[other]["speed_of_paged"])]
            rows.append(row)
        head = ("batch", "paged ms", "extend openvino ms", "times", "extend onnxruntime ms", "times")
        parts.append(f"## {model}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="two rounds, the demo target only, whoever else uses the machine")
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    facts, rounds = environment(), 2 if arguments.quick else arguments.rounds
    tries = 1 if arguments.quick else TRIES
    records = compare(DEMO, "demo target", context=1024, rounds=rounds, precision=arguments.precision, tries=tries)
    if not arguments.quick:
        with tempfile.TemporaryDirectory(prefix="inlay-paged-") as directory:
            os.environ["INLAY_CACHE"] = f"{directory}/cache"
            folder = Path(directory) / "llama"
            build_model(folder)
            records += compare(folder, "random Llama", context=2048, rounds=rounds, precision=arguments.precision)
    text = page(records, rounds=rounds, precision=arguments.precision)
    facts |= {"rounds": rounds, "threads": 1, "precision": arguments.precision}
    name = "paged" if arguments.precision == "float32" else f"paged_{arguments.precision}"
    write_result(name, title="Paged runner", facts=facts, records=records, text=text, folder=arguments.out)


if __name__ == "__main__":
    main()
