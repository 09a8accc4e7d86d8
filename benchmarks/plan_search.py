"""Times the search of more than 100,000 candidates and the integer programme, with a small one tried by hand beside it.

python benchmarks/plan_search.py
"""

from __future__ import annotations

import itertools
import time

from measuring import RESULTS, environment, table, write_result

from inlay.cost.ownership import PriceList
from inlay.cost.serving import Predictor
from inlay.hardware.catalogue import read_catalogue
from inlay.models.facts import read_facts
from inlay.planner import KnownSteps, Question, answer, parse_draft, parse_fleet, parse_load
from inlay.planner.programme import Limits, best_mix, throughput_of
from inlay.planner.splits import instances, mixed

CHIPS = "b200:8,corsair:16,h200:8,h100:8"
LINK = 50e9  # bytes a second
SMALL = {"b200": 3, "h200": 2}
KINDS = 8  # every mix of so many is tried


def main() -> None:
    facts = environment() | {"grade": "measured"}
    catalogue, predictor, load = read_catalogue(), Predictor.shipped(), parse_load("isl=8192,osl=1024")
    prices = PriceList(catalogue=catalogue)
    question = Question(
        model="gpt-oss-120b", fleet=parse_fleet(CHIPS), load=load, floor=100.0,
        draft=parse_draft("1.6b", acceptance=0.8), own_draft=parse_draft("0.8b/1", acceptance=0.75),
    )  # fmt: skip
    known: KnownSteps = {}
    start = time.perf_counter()
    found = answer(question, read_facts("gpt-oss-120b"), catalogue=catalogue, predictor=predictor, prices=prices, known=known)
    searched = time.perf_counter() - start
    start = time.perf_counter()
    best = mixed(question, known, catalogue=catalogue, prices=prices, bandwidth=LINK)
    programmed = time.perf_counter() - start
    if best is None:
        raise SystemExit("no mix keeps the floor")
    parts = instances(question, known, catalogue=catalogue, prices=prices, bandwidth=LINK)
    few = [item for item in parts if set(item.chips) <= set(SMALL) and sum(item.chips.values()) <= 2][:KINDS]
    exact = best_mix(few, Limits(chips=SMALL), output_tokens=load.output_tokens)
    start, tried, most = time.perf_counter(), 0, 0.0
    for counts in itertools.product(*(range(SMALL[chip] // n + 1) for item in few for chip, n in item.chips.items())):
        tried += 1
        used = {c: sum(i.chips.get(c, 0) * k for i, k in zip(few, counts, strict=True)) for c in SMALL}
        if all(used[chip] <= have for chip, have in SMALL.items()):
            most = max(most, throughput_of(few, counts, output_tokens=load.output_tokens))
    by_hand = time.perf_counter() - start
    gap = f"{best[1].throughput:,.0f} tokens/s, gap {best[1].gap:.1e}"
    rows = [
        ["search", f"{found.searched:,} candidates", f"{searched:.2f}", "none pruned but for memory"],
        ["programme", f"{len(parts)} kinds of instance", f"{programmed:.3f}", gap],
        [
            "every small mix",
            f"{tried:,} mixes of {len(few)} kinds",
            f"{by_hand:.2f}",
            f"{most:,.0f} tokens/s; the programme {exact.throughput:,.0f}, gap {exact.gap:.1e}",
        ],
    ]
    text = (
        f"gpt-oss-120b, 8K/1K, floor of 100 tokens/s per user, {CHIPS}.\n"
        "Seconds are measured on this machine, tokens a second modelled. Kinds are taken from what the search has\n"
        "seen, without drafts; prompts are computed without a queue, so that tokens a second are a ceiling: they show that\n"
        "the programme is exact, not what such chips would deliver.\n\n" + table(["what", "size", "seconds", "result"], rows)
    )
    records = {"candidates": found.searched, "seconds": searched, "kinds": len(parts), "programme": programmed, "mixes": tried}
    write_result("plan_search", title="Searching plans", facts=facts, records=records, text=text, folder=RESULTS)


if __name__ == "__main__":
    main()
