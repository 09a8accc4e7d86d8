"""Prefill on one vendor, decode on another: the published study (arXiv 2507.19635, 5.1) by a roofline that says all it takes.

    python benchmarks/vendor_pairs.py [--out DIR]

Nothing is measured and nothing fitted. It prints; the arithmetic is `inlay.cost.phase_pairs`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from measuring import RESULTS, environment, table, write_result

from inlay.cost.phase_pairs import (
    PairDevice,
    PairLoad,
    PairTerms,
    cheapest_decode,
    cheapest_prefill,
    pair_devices,
    pair_dollars,
)
from inlay.models.facts import Formats, ModelFacts, formats_of, read_facts

COLLECTIVES = tuple(micro * 1e-6 for micro in (10, 20, 30, 40, 50))
SHAPES = ((512, 4096), (4096, 512))
BUDGETS: dict[str, dict[str, float]] = {"latency": {"first_token": 0.25, "between_tokens": 0.02}, "throughput": {}}
PAIRS = (
    ("B200", "Gaudi 3"), ("H100", "Gaudi 3"), ("B200", "B200"), ("B200", "H100"), ("B200", "MI300X"), ("Gaudi 3", "Gaudi 3"),
)  # fmt: skip
MODELS = [
    (f"{name} {label}", f"llama-3.1-{name.lower()}", precision)
    for name in ("8B", "70B")
    for label, precision in (("FP8", "fp8"), ("FP16", "bf16"))
]
# An earlier, independent working of the same recipe (one digit, latency budget): the models in the order above, 10 to 50 us.
EARLIER = {
    ("B200", "Gaudi 3"): ("1.7 / 1.7-1.8 / 1.8 / 1.9-2.6", "1.6 / 1.6 / 1.6-1.7 / 1.7-2.2"),
    ("H100", "Gaudi 3"): ("1.7 / 1.7 / 1.7 / 1.8-2.6", "1.3 / 1.3 / 1.1 / 1.1-1.6"),
    ("B200", "B200"): ("1.7-1.8 / 1.7-1.9 / 2.0-2.3 / 2.2-3.7", "1.6 / 1.6-1.7 / 1.8 / 1.8-2.7"),
    ("B200", "MI300X"): ("2.0 / 1.9-2.1 / 1.9-2.0 / 2.2-3.3", "1.7 / 1.7 / 1.7 / 1.8-2.5"),
    ("Gaudi 3", "Gaudi 3"): ("1.7 / 1.8 / 1.8 / 1.9-2.6", "1.5 / 2.0-2.1 / 1.4-1.5 / 2.3-2.8"),
}
NEAR = 0.1
RECIPE = """Every figure is **modelled**. How many times as many requests a dollar as H100::H100, `prefill::decode`.

Recipe: Llama 3.1 8B and 70B, weights and KV in one byte (FP8) or two (FP16). One instance has 1, 2, 4 or 8 chips. A pass
takes the longer of arithmetic / (50 % of peak) and bytes / (70 % of bandwidth), and on several chips two sums a layer of
10, 20, 30, 40 or 50 us and 2 (n-1)/n x tokens x hidden x 2 bytes over the link (450 / 900 / 525 / 448 GB/s for H100 / B200
/ Gaudi 3 / MI300X). Weights and KV must fit into 90 % of memory. Prefill: batches 1, 2, 4 ... 64, logits of the last token
only; decode: the largest batch whose KV of all tokens in and out fits and whose step keeps the budget, read at tokens in
and half of those out. The cheapest instance of each phase counts: chips x seconds x dollars an hour, over its batch.
Dollars an hour: price / 35,040 + the published operating cost (1.313 / 1.972 / 0.847 / 1.091). TFLOPS dense, two bytes /
one: H100 989 / 1,979, B200 2,250 / 4,500, Gaudi 3 1,678 / 1,678, MI300X 1,307 / 2,615; "as published" has 1,979 for H100 in
two bytes and the rest alike. Latency budget: first token in 250 ms (one prefill pass, no queue), 20 ms between tokens;
throughput budget: none. The hand-off is not charged. A range is over 10 to 50 us."""


class Cell(NamedTuple):
    """One pair on one load: least and most gain over the range."""

    pair: tuple[str, str]
    model: str
    shape: tuple[int, int]
    budget: str
    figures: str
    low: float
    high: float
    at_each: tuple[float, ...]


def sized(model: str, precision: str) -> tuple[ModelFacts, Formats]:
    facts = read_facts(model)
    return facts, formats_of(facts, precision, kv=precision)


def cells() -> Iterator[Cell]:
    for figures in ("corrected", "as published"):
        devices = pair_devices(as_published=figures == "as published")
        for budget, limits in BUDGETS.items():
            for shape in SHAPES:
                for label, model, precision in MODELS:
                    facts, formats = sized(model, precision)
                    load = PairLoad(*shape, **limits)
                    for pair in PAIRS:
                        gains = tuple(gain(facts, formats, devices, pair, load, seconds) for seconds in COLLECTIVES)
                        yield Cell(pair, label, shape, budget, figures, min(gains), max(gains), gains)


def gain(
    facts: ModelFacts, formats: Formats, devices: dict[str, PairDevice], pair: tuple[str, str], load: PairLoad, seconds: float
) -> float:
    terms = PairTerms(collective=seconds)
    base = pair_dollars(facts, formats, devices["H100"], devices["H100"], load, terms)
    found = pair_dollars(facts, formats, devices[pair[0]], devices[pair[1]], load, terms)
    return base / found if base and found else float("nan")


def shown(low: float, high: float, digits: int = 2) -> str:
    first, last = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return first if first == last else f"{first}-{last}"


def named(pair: tuple[str, str]) -> str:
    return "::".join(name.replace(" ", "") for name in pair)


def tables(found: list[Cell]) -> Iterator[str]:
    by = {(cell.figures, cell.budget, cell.shape, cell.pair, cell.model): cell for cell in found}
    for figures in ("corrected", "as published"):
        for budget in BUDGETS:
            for shape in SHAPES:
                yield f"\n### {figures} FLOPS, {budget} budget, {shape[0]:,} in / {shape[1]:,} out\n"
                rows = []
                for pair in PAIRS:
                    row = [by[figures, budget, shape, pair, label] for label, *_ in MODELS]
                    rows.append([named(pair), *(shown(cell.low, cell.high) for cell in row)])
                yield table(["pair", *(label for label, *_ in MODELS)], rows)


def compared(found: list[Cell]) -> tuple[str, list[dict[str, Any]]]:
    """Cell by cell against the earlier working: both ends of each range."""
    by = {
        (cell.shape, cell.pair, cell.model): cell for cell in found if (cell.figures, cell.budget) == ("corrected", "latency")
    }
    rows, records = [], []
    for pair, texts in EARLIER.items():
        for shape, text in zip(SHAPES, texts, strict=True):
            for (label, *_), part in zip(MODELS, text.split(" / "), strict=True):
                low, _, high = part.partition("-")
                cell = by[shape, pair, label]
                off = max(abs(cell.low - float(low)), abs(cell.high - float(high or low)))
                records.append({"pair": pair, "shape": shape, "model": label, "off": round(off, 3), "near": off <= NEAR})
                if off > NEAR:
                    rows.append(
                        [named(pair), f"{shape[0]:,}/{shape[1]:,}", label, part, shown(cell.low, cell.high), f"{off:.2f}"]
                    )
    near = sum(item["near"] for item in records)
    text = (
        f"{near} of {len(records)} cells agree with an earlier working of the same recipe within {NEAR} at both ends.\n"
        "The recipe was run as written first; nine other readings of what it leaves open (the sum of arithmetic and memory,\n"
        "messages of none, half and twice the bytes, decode batches of powers of two) agree in fewer cells: none was taken.\n"
        "The others:\n\n"
    )
    return text + table(["pair", "in/out", "model", "earlier", "here", "off"], rows), records


def phase_costs() -> str:
    """The two phases apart, corrected figures, 20 us: who computes a prompt and who writes an answer for the least money."""
    rows, terms, devices = [], PairTerms(collective=20e-6), pair_devices()
    loads = [
        ("prefill of 4,096 in 250 ms", cheapest_prefill, PairLoad(4096, 512, first_token=0.25)),
        ("prefill of 4,096, no budget", cheapest_prefill, PairLoad(4096, 512)),
        ("decode of 4,096, 20 ms a token", cheapest_decode, PairLoad(512, 4096, between_tokens=0.02)),
        ("decode of 4,096, 40 ms a token", cheapest_decode, PairLoad(512, 4096, between_tokens=0.04)),
        ("decode of 4,096, no budget", cheapest_decode, PairLoad(512, 4096)),
    ]
    for label, model, precision in MODELS:
        facts, formats = sized(model, precision)
        for name, cheapest, load in loads:
            choices = {key: cheapest(facts, formats, device, load, terms) for key, device in devices.items()}
            costs = {key: choice.dollars * 1e3 for key, choice in choices.items() if choice}
            best = min(costs, key=lambda key: costs[key])
            parts = [f"{costs[key]:.3f} ({choices[key].chips})" if key in costs else "-" for key in devices]
            rows.append([f"{label}, {name}", *parts, best])
    return table(["phase", *devices, "least"], rows)


def parallel() -> str:
    """Requests a dollar in decode by chips of an instance, relative to one chip or the fewest that hold it."""
    rows = []
    for label, model, precision in MODELS:
        facts, formats = sized(model, precision)
        for name, device in pair_devices().items():
            for micro in (10, 50):
                terms = PairTerms(collective=micro * 1e-6)
                load = PairLoad(512, 4096, between_tokens=0.02)
                found = [
                    cheapest_decode(facts, formats, device, load, replace(terms, chip_counts=(chips,)))
                    for chips in terms.chip_counts
                ]
                first = next((item.dollars for item in found if item), None)
                parts = [f"{first / item.dollars:.2f}" if item and first else "-" for item in found]
                rows.append([f"{label}, {name}, {micro} us", *parts])
    return table(["decode of 4,096 in 20 ms a token", "1 chip", "2", "4", "8"], rows)


def findings(found: list[Cell]) -> tuple[str, dict[str, Any]]:
    """How often each published statement holds, counted over the cells of the corrected and the published figures."""
    lines, counts = [], {}
    by = {(cell.figures, cell.budget, cell.shape, cell.model, cell.pair): cell for cell in found}
    paper = [pair for pair in PAIRS if pair not in (("B200", "MI300X"), ("Gaudi 3", "Gaudi 3"))]
    mixed, same, older = ("B200", "Gaudi 3"), ("B200", "B200"), ("H100", "Gaudi 3")
    for figures in ("corrected", "as published"):
        for budget in BUDGETS:
            for shape in SHAPES:
                key = f"{figures}, {budget}, {shape[0]:,}/{shape[1]:,}"
                best, equal, beyond = [], [], []
                for label, *_ in MODELS:
                    at = {pair: by[figures, budget, shape, label, pair].at_each for pair in PAIRS}
                    ranges = range(len(COLLECTIVES))
                    best.append(sum(all(at[mixed][i] >= at[pair][i] for pair in paper) for i in ranges))
                    equal.append(sum(at[older][i] >= 0.97 * at[same][i] for i in ranges))
                    beyond.append(sum(max(at[pair][i] for pair in PAIRS) > max(at[pair][i] for pair in paper) for i in ranges))
                counts[key] = {"a": best, "b": equal, "pairs not in the study win": beyond}
                lines.append([key, *(" / ".join(map(str, item)) for item in (best, equal, beyond))])
    head = [
        "figures, budget, in/out",
        "(a) B200::Gaudi3 best",
        "(b) H100::Gaudi3 >= 0.97 x B200::B200",
        "a pair outside the study wins",
    ]
    return table(head, lines), counts


READING = """- **(a)** B200::Gaudi3 is the best of the study's pairs, most so in FP8 (first column, of 5 values of the sum over
  chips, by model). With dense figures it holds without budgets, everywhere; under the latency budget it fails for 70B
  and hangs on the cost of a sum for 8B. With H100 as printed it holds in FP8 only. "Most so in FP8" does not follow
  from dense figures.
- **(b)** H100::Gaudi3 is about equal to B200::B200 (second column, 3 % counts as equal): for long answers without
  budgets and, in most of the range, for 8B with them; for long prompts with dense figures never, in FP16 with H100 as
  printed.
- **(c)** Long prompts: Gaudi 3 computes them for the least money in FP16, B200 of the study's chips in FP8. Reproduced;
  with the latency budget Gaudi 3 keeps FP16.
- **(d)** Long answers: of the study's chips Gaudi 3 is the cheapest of all four models at 40 ms a token, at 20 ms B200
  for three. Reproduced. MI300X, which the study leaves out, is below both at 40 ms.
- **(e)** More chips help at first, then sums over chips eat it: reproduced where the model leaves one chip little room
  (last table, 70B FP8 on B200 at 10 us)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where the results go (%(default)s)")
    arguments = parser.parse_args()
    facts = environment() | {"grade": "modelled"}
    found = list(cells())
    comparison, apart = compared(found)
    statements, counts = findings(found)
    most = max(found, key=lambda cell: cell.high)
    where = f"{named(most.pair)}, {most.model}, {most.shape[0]:,}/{most.shape[1]:,}, {most.budget}"
    top = f"The largest gain anywhere is {most.high:.2f}: {where}."
    text = "\n".join([
        RECIPE, "\n## Which statements hold\n", statements, "", READING, f"- {top} Published: 3 to 4.",
        "\n## Against an earlier working\n", comparison, "\n## All cells", *tables(found),
        "\n## Dollars of a thousand requests by phase (chips of the cheapest instance), 20 us\n", phase_costs(),
        "\n## More chips an instance: requests a dollar against the fewest chips that can\n", parallel(),
    ])  # fmt: skip
    records = {"cells": [cell._asdict() for cell in found], "against_earlier": apart, "statements": counts}
    write_result(
        "vendor_pairs", title="Prefill and decode on two vendors", facts=facts, records=records, text=text, folder=arguments.out
    )


if __name__ == "__main__":
    main()
