"""Time of one decode step against the length of the past: a device's runner beside transformers with a DynamicCache.

    python benchmarks/step_time.py [--rounds N] [--quick] [--out DIR]

In one process on one core with one thread each, taking turns; float32; 1 and 8 sequences; a random-weight Llama of
about 96 million parameters, made in a temporary folder, and the demo target. No processes, messages or prompts are in it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, environment, ratios, say, show, spread, table, write_result
from quiet import LIMIT, PAUSE_SECONDS, TRIES, Watch
from steppers import HuggingFaceStepper, RunnerStepper, Stepper

DEMO = ROOT / "demo" / "target"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BACKENDS = ("openvino", "onnxruntime")
BATCHES = (1, 8)
STEPS = 6
CONTEXT = 4096
LENGTHS = (128, 512, 1024, 1040, 2048, 4096)
DEMO_LENGTHS = (128, 512, 1024)
MIDDLE: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 768,
    "intermediate_size": 2560,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
Times = dict[tuple[int, int], dict[str, list[tuple[float, float]]]]


def build_model(folder: Path) -> int:
    """Write the random Llama with the demo tokenizer; how many parameters it has."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **MIDDLE)).float().eval()
    model.generation_config.do_sample = False
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(DEMO / name, folder / name)
    return sum(item.numel() for item in model.parameters())


def race(steppers: Sequence[Stepper], lengths: Sequence[int], *, rounds: int) -> tuple[Times, int]:
    """By (sequences, past length) and name, one (step, framework) a round; how many rows of turns were noisy."""
    found: Times = {(batch, past): {item.name: [] for item in steppers} for batch in BATCHES for past in lengths}
    rng = random.Random(3)
    noisy = 0
    for number in range(rounds + 1):
        begin = time.perf_counter()
        for (batch, past), series in found.items():
            order = rng.sample(steppers, len(steppers))
            if number == 0:
                take_turns(order, batch, past)
                continue
            times, noisy_cell = take_quiet_turns(order, batch, past)
            noisy += noisy_cell
            for name, pair in times.items():
                series[name].append(pair)
        say(f"round {number} of {rounds}: {time.perf_counter() - begin:.1f} s")
    say(f"{noisy} of {rounds * len(found)} rows of turns stayed under foreign load")
    return found, noisy


def take_turns(steppers: Sequence[Stepper], batch: int, past: int) -> dict[str, tuple[float, float]]:
    """By name the medians of STEPS steps that end at `past`: the whole step, and the framework's run in it."""
    found = {}
    for item in steppers:
        item.place(batch, past - STEPS)
        steps = [item.step() for _ in range(STEPS)]
        found[item.name] = (statistics.median(step for step, _ in steps), statistics.median(inner for _, inner in steps))
    return found


def take_quiet_turns(steppers: Sequence[Stepper], batch: int, past: int) -> tuple[dict[str, tuple[float, float]], bool]:
    """The same, taken again while other programs use too much of the machine; whether they never stopped."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        watch = Watch()
        found = take_turns(steppers, batch, past)
        if watch.read()[1] <= LIMIT:
            return found, False
    return found, True


def compare(folder: Path, model: str, lengths: Sequence[int], *, context: int, rounds: int) -> tuple[list[dict[str, Any]], int]:
    """Load everybody, race, and one record a row; how many rows of turns stayed under foreign load."""
    slots = max(BATCHES)
    rival = "Hugging Face"
    everywhere = os.sched_getaffinity(0)
    steppers: list[Stepper] = []
    for name in BACKENDS:
        say(f"{model}: lowering and loading {name}")
        steppers.append(RunnerStepper(folder, name, context=context, slots=slots))
    os.sched_setaffinity(0, {min(everywhere)})
    steppers.append(HuggingFaceStepper(folder, context=context, slots=slots))
    found, noisy = race(steppers, lengths, rounds=rounds)
    os.sched_setaffinity(0, everywhere)
    records = []
    for (batch, past), series in found.items():
        theirs = [step for step, _ in series[rival]]
        for item in steppers:
            ours = [step for step, _ in series[item.name]]
            entry = {
                "model": model,
                "sequences": batch,
                "past": past,
                "contestant": item.name,
                "rows_attended": item.room(past - 1),
                "step_ms": spread([1e3 * step for step in ours]),
                "speed_of_hugging_face": ratios(theirs, ours),
                "rounds_ms": [round(1e3 * step, 4) for step in ours],
            }
            inner = [seconds for _, seconds in series[item.name]]
            if any(inner):
                outside = [1e3 * (step - seconds) for step, seconds in zip(ours, inner, strict=True)]
                entry["ms_outside_framework"] = round(statistics.median(outside), 4)
            records.append(entry)
    return records, noisy


HEAD = ("sequences x past", "rows", "HF ms", "openvino ms", "of HF", "onnxruntime ms", "of HF", "outside framework ms")


def page(models: dict[str, int], records: Sequence[dict[str, Any]], *, rounds: int, noisy: int) -> str:
    """A table a model, and where we lose."""
    parts = [
        f"One decode step (one new token a sequence), one thread on one core, float32, {rounds} rounds of {STEPS} steps that "
        "end at the past length named. *of HF* is our speed in units of Hugging Face's, round by round: above 1 we are faster. "
        "*rows*: the KV bucket that our attention goes over, full or not (Hugging Face goes over the past alone, and copies "
        "it each step). Ours is the runner of a device process: binding, run, KV rows, sampler; no messages. *outside "
        "framework*: what the runner adds to the framework's own run (openvino / onnxruntime). Caches hold random "
        f"numbers. Turns during which other programs used over {LIMIT} of a core were taken again, up to {TRIES} "
        f"times; {noisy} times in {rounds * len(records) // (1 + len(BACKENDS))} they never stopped."
    ]
    for model, parameters in models.items():
        mine = [entry for entry in records if entry["model"] == model]
        rows = []
        for batch, past in dict.fromkeys((entry["sequences"], entry["past"]) for entry in mine):
            line = {e["contestant"]: e for e in mine if (e["sequences"], e["past"]) == (batch, past)}
            first, second = (line[f"inlay {name}"] for name in BACKENDS)
            rows.append(
                [
                    f"{batch} x {past}",
                    str(first["rows_attended"]),
                    f"{line['Hugging Face']['step_ms'].median:.2f}",
                    f"{first['step_ms'].median:.2f}",
                    show(first["speed_of_hugging_face"]),
                    f"{second['step_ms'].median:.2f}",
                    show(second["speed_of_hugging_face"]),
                    f"{first['ms_outside_framework']:.2f} / {second['ms_outside_framework']:.2f}",
                ]
            )
        parts.append(f"## {model}, {parameters / 1e6:.1f} million parameters\n\n{table(HEAD, rows)}")
    lines = [
        f"- {entry['model']}, {entry['sequences']} sequences of {entry['past']}: {entry['contestant']} runs at "
        f"{show(entry['speed_of_hugging_face'])} of Hugging Face's speed"
        f"{'' if entry['speed_of_hugging_face'].high < 1 else ', within the noise'}."
        for entry in records
        if entry["contestant"] != "Hugging Face" and entry["speed_of_hugging_face"].median < 1
    ]
    parts.append("## Where we lose\n\n" + "\n".join(lines or ["Nowhere at these lengths on this machine."]))
    return "\n\n".join(parts)


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="two rounds, the demo target only")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    facts = environment()
    rounds = 2 if arguments.quick else arguments.rounds
    demo_context = DEMO_LENGTHS[-1]
    models = {"demo target": 9_250_000}
    records, noisy = compare(DEMO, "demo target", DEMO_LENGTHS, context=demo_context, rounds=rounds)
    if not arguments.quick:
        with tempfile.TemporaryDirectory(prefix="inlay-step-time-") as directory:
            os.environ["INLAY_CACHE"] = f"{directory}/cache"
            say("making the random Llama")
            models["random Llama"] = build_model(Path(directory) / "llama")
            more, noise = compare(Path(directory) / "llama", "random Llama", LENGTHS, context=CONTEXT, rounds=rounds)
            records, noisy = records + more, noisy + noise
    text = page(models, records, rounds=rounds, noisy=noisy)
    facts |= {"rounds": rounds, "turns_under_foreign_load": noisy, "steps_a_round": STEPS, "threads": 1, "parameters": models}
    write_result("step_time", title="Step time", facts=facts, records=records, text=text, folder=arguments.out)


if __name__ == "__main__":
    main()
