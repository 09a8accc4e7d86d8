"""Regret of the chosen plan: every assignment of a model's blocks to the places of a small cluster is built, run and timed.

    python benchmarks/regret.py [--subjects NAMES] [--openings N] [--rounds N] [--quick] [--cache DIR] [--out DIR]

The plan is chosen by a search of its own. Brute force then times all assignments in turn (first timings) and names the fastest;
it, the chosen plan, every single place and the next fastest run again in turn in fresh processes (fresh timings), and only
these are judged: the lowest of several hundred noisy figures is lucky, not best. Subjects that are not named are kept from the
last run. No figure is asserted on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from alternatives import Alternatives, Assignment, regions_of
from measuring import RESULTS, ROOT, Spread, as_spread, environment, kept_records, say, show, table, write_result
from openings import QUIET_LOAD, Taken, median, ratio, wait_for_quiet

from inlay import api
from inlay.api.programs import search_partition
from inlay.hardware import Cluster, Place, probe
from inlay.specs.partition import Partition

GOAL = 0.05
BEST = 12
"""So many of the fastest by the first timings are timed afresh."""
TURN_SECONDS = 0.04
MOST_PLANS = 512


@dataclass(frozen=True, slots=True)
class Subject:
    """A model at one point, and the places its blocks are assigned to: so many devices of one core, and the frameworks."""

    name: str
    what: str
    point: dict[str, int]
    devices: int
    backends: tuple[str, ...]

    def model(self) -> api.CapturedModel:
        """Captured; of the zoo of models, or a file of the cases."""
        if self.name.endswith(".py"):
            return api.capture_file(f"{ROOT / 'examples' / 'cases' / self.name}:build_small", progress=say)
        built = getattr(importlib.import_module("model_zoo"), self.name)()
        parts = built["model"], built.get("args", ()), built.get("kwargs", {})
        return api.capture(*parts, dynamic=built.get("dynamic"), points=[self.point], name=self.name)


TWO, THREE = ("openvino", "onnxruntime"), ("openvino", "onnxruntime", "inductor")
SUBJECTS = (
    Subject("gpt2", "GPT-2, 2 of 12 layers", {"batch": 1, "length": 32}, 2, TWO),
    Subject("llama", "SmolLM2 135M, 3 of 30 layers", {"batch": 1, "length": 32}, 1, THREE),
    Subject("vit", "ViT base, 2 of 12 layers", {"batch": 2}, 1, TWO),
    Subject("bart", "BART base, 2 of 6 layers a side", {"batch": 1, "source": 48, "target": 16}, 1, TWO),
    Subject("resnet", "ResNet 18", {"batch": 2}, 1, TWO),
    Subject("specialists.py", "mobile convolutions, then linear attention", {}, 1, TWO),
)


def cluster_for(subject: Subject) -> Cluster:
    """The first devices of this machine."""
    local = probe()
    names = list(local.devices)[: subject.devices]
    if len(names) < subject.devices:
        raise SystemExit(f"error: {subject.name} wants {subject.devices} devices, here are {names}")
    return Cluster(nodes=local.nodes, devices={name: local.devices[name] for name in names}, chips=local.chips)


def assignments(blocks: int, places: Sequence[Place]) -> list[Assignment]:
    """All of them."""
    count = len(places) ** blocks
    if count > MOST_PLANS:
        raise SystemExit(f"error: {len(places)} places and {blocks} blocks are {count} plans, at most {MOST_PLANS}")
    return list(product(places, repeat=blocks))


def assignment_of(plan: Partition) -> Assignment:
    """The place of every block."""
    found = {at: region.place for region in plan.regions for at in range(region.first, region.end)}
    return tuple(found[at] for at in range(len(found)))


@dataclass
class Timings:
    """Seconds of a pass by plan: a list for each opening, in it one for each round."""

    taken: dict[str, Taken]

    def best(self, count: int) -> list[str]:
        """The fastest by median."""
        return sorted(self.taken, key=lambda name: median(self.taken[name]))[:count]


def timed(world: Alternatives, plans: dict[str, tuple[str, ...]], *, openings: int, rounds: int, label: str) -> Timings:
    """Every plan once a round in an order drawn anew, all processes started anew for each opening.

    A turn is one pass that does not count, then as many as make about TURN_SECONDS."""
    taken: dict[str, Taken] = {name: [] for name in plans}
    rng = random.Random(5)
    for opening in range(openings):
        begun = time.perf_counter()
        with world.open() as session:
            once = {name: world.run(session, order) for name, order in plans.items()}
            for name in plans:
                taken[name].append([])
            for _ in range(rounds):
                for name in rng.sample(list(plans), len(plans)):
                    world.run(session, plans[name])
                    passes = max(1, min(10, round(TURN_SECONDS / once[name])))
                    seconds = sum(world.run(session, plans[name]) for _ in range(passes)) / passes
                    taken[name][-1].append(seconds)
        spent = time.perf_counter() - begun
        say(f"{label}: opening {opening + 1} of {openings}, {len(plans)} plans, {spent:.0f} s, load {os.getloadavg()[0]:.2f}")
    return Timings(taken)


def judge(subject: Subject, options: argparse.Namespace, facts: dict[str, Any]) -> dict[str, Any]:
    """Search, brute force, fresh timings."""
    load = wait_for_quiet(options.wait)
    cluster, model = cluster_for(subject), subject.model()
    begun = time.perf_counter()
    chosen, search = search_partition(model, cluster=cluster, backends=subject.backends, progress=lambda text: None)
    spent = time.perf_counter() - begun
    say(f"{subject.name}: {chosen.reason} ({spent:.0f} s)")
    world = Alternatives(model, search.places, cluster, progress=say)
    plans, singles, refused = {}, {}, 0
    for found in assignments(len(search.chain.blocks), search.places):
        order = world.order(found)
        if order is None:
            refused += 1
            continue
        plans[name_of(found)] = order
        if len(set(found)) == 1:
            singles[name_of(found)] = order
    ours = world.order_of(chosen)
    name = next((key for key, order in plans.items() if order == ours), "the chosen plan, block by block")
    plans[name] = ours
    wait_for_quiet(options.wait)
    first = timed(world, plans, openings=options.first_openings, rounds=options.first_rounds, label=f"{subject.name} first")
    again = {key: plans[key] for key in dict.fromkeys((*first.best(BEST), *singles, name))}
    fresh = timed(world, again, openings=options.openings, rounds=options.rounds, label=f"{subject.name} fresh")
    return {
        "subject": subject.name,
        "what": subject.what,
        "point": subject.point,
        "taken": facts["date"],
        "commit": facts["commit"],
        "load_before": round(load, 2),
        "blocks": len(search.chain.blocks),
        "places": [str(place) for place in search.places],
        "plans": len(plans),
        "refused": refused,
        "search_seconds": round(spent, 1),
        "why": chosen.reason,
        "predicted_ms": 1e3 * chosen.value.value if chosen.value is not None else None,
        **verdict(name, first, fresh, singles),
    }


def verdict(name: str, first: Timings, fresh: Timings, singles: Sequence[str] | dict[str, Any]) -> dict[str, Any]:
    """The chosen plan on fresh timings, against the fastest by the first ones, the fastest of all, and the single places."""
    winner, luckiest = first.best(1)[0], fresh.best(1)[0]
    single = min(singles, key=lambda key: median(fresh.taken[key])) if singles else None
    ours = fresh.taken[name]
    ranks = first.best(len(first.taken))
    return {
        "chosen": name,
        "chosen_ms": 1e3 * median(ours),
        "fastest_at_first": winner,
        "fastest_at_first_ms": 1e3 * median(fresh.taken[winner]),
        "rank_at_first": 1 + ranks.index(name),
        "slowest_ms": 1e3 * median(first.taken[ranks[-1]]),
        "regret": ratio(ours, fresh.taken[winner]),
        "fastest_afresh": luckiest,
        "regret_afresh": ratio(ours, fresh.taken[luckiest]),
        "single": single,
        "against_single": ratio(ours, fresh.taken[single]) if single else None,
        "fresh": {key: [[round(value, 7) for value in opening] for opening in taken] for key, taken in fresh.taken.items()},
        "first_ms": {key: round(1e3 * median(taken), 4) for key, taken in first.taken.items()},
    }


def name_of(found: Assignment) -> str:
    """`0-2 cpu:0/openvino, 3-3 cpu:1/onnxruntime`."""
    return ", ".join(f"{first}-{end - 1} {place}" for first, end, place in regions_of(found))


HEAD = ("plans", "chosen", "ms", "rank at first", "regret", "regret, fastest afresh", "of the best single place", "said")


def page(records: Sequence[dict[str, Any]]) -> str:
    """The table, and what is in it."""
    lines = []
    for item in records:
        regret, single = as_spread(item["regret"]), item["against_single"]
        lines.append(
            [
                f"{item['what']} ({item['blocks']} blocks, {len(item['places'])} places)",
                str(item["plans"]),
                item["chosen"],
                f"{item['chosen_ms']:.2f}",
                f"{item['rank_at_first']}",
                show(regret, 3),
                show(as_spread(item["regret_afresh"]), 3),
                show(as_spread(single), 3) if single else "",
                said(regret, as_spread(single) if single else None),
            ]
        )
    text = (
        "Every assignment of a model's blocks to the places of a cluster, each run of blocks at one place lowered whole, run "
        "by one driver with a process for each device of one core; random weights, float32. *Rank at first*: where the chosen "
        "plan stood among all plans on the first timings. *Regret*: its time on the fresh timings, over that of the plan that "
        f"was fastest on the first ones. *Fastest afresh*: over the lowest fresh median of the {BEST} fastest at first, which "
        f"is the luckier the more are compared. The goal is a regret of at most {GOAL:.0%}, and never slower than the best "
        "single place."
    )
    taken = [f"- {item['what']}: {item['taken']}, {item['commit'][:12]}, load {item['load_before']}." for item in records]
    whole = [f"- {item['what']}: {item['why']}. Fastest at first: {item['fastest_at_first']}." for item in records]
    return "\n\n".join(
        [text, table(("model", *HEAD), lines), "## What was chosen\n\n" + "\n".join(whole), "## Taken\n\n" + "\n".join(taken)]
    )


def said(regret: Spread, single: Spread | None) -> str:
    """The verdict in words."""
    goal = "met" if regret.high <= 1 + GOAL else "met in the median" if regret.median <= 1 + GOAL else "missed"
    slower = "; SLOWER than the best single place" if single is not None and single.low > 1 else ""
    return f"goal {goal}{slower}"


def main() -> None:
    """Parses, judges, writes after every subject."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", default=",".join(subject.name for subject in SUBJECTS))
    parser.add_argument("--openings", type=int, default=5, help="of the fresh timings")
    parser.add_argument("--rounds", type=int, default=8, help="in each opening of the fresh timings")
    parser.add_argument("--first-openings", type=int, default=2)
    parser.add_argument("--first-rounds", type=int, default=4)
    parser.add_argument("--wait", type=float, default=300.0, help=f"seconds to wait for a load below {QUIET_LOAD}")
    parser.add_argument("--quick", action="store_true", help="one opening of two rounds each")
    parser.add_argument("--cache", type=Path, help="keep lowered code and timings in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.openings = options.first_openings = 1
        options.rounds = options.first_rounds = 2
        options.wait = 0.0
    facts, names = environment(), options.subjects.split(",")
    unknown = sorted(set(names) - {subject.name for subject in SUBJECTS})
    if unknown:
        raise SystemExit(f"error: subject {unknown[0]!r}, expected one of {[subject.name for subject in SUBJECTS]}")
    records = kept_records(options.out / "regret.json", "subject", names)
    order = [subject.name for subject in SUBJECTS]
    with tempfile.TemporaryDirectory(prefix="inlay-regret-") as temporary:
        os.environ["INLAY_CACHE"] = str((options.cache or Path(temporary) / "cache").resolve())
        for subject in SUBJECTS:
            if subject.name in names:
                records.append(judge(subject, options, facts))
                records.sort(key=lambda item: order.index(item["subject"]))
                write_result(
                    "regret",
                    title="Regret of the chosen plan",
                    facts=facts,
                    records=records,
                    text=page(records),
                    folder=options.out,
                )


if __name__ == "__main__":
    main()
