"""Judges plans: searched with one set of timings, then the five best plans and every single place run in turn on fresh ones.

    python benchmarks/plans.py [--cases NAMES] [--openings N] [--rounds N] [--quick] [--cache DIR] [--out DIR]

The cases are those of examples/cases. The verdict on a case: is the chosen plan slower than the best single place, beyond the
95 % interval of the ratio? Cases that are not named are kept from the last run. No figure is asserted on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, environment, kept_records, say, write_result
from openings import QUIET_LOAD, Taken, median, race, ratio, wait_for_quiet
from plan_pages import page

from inlay import api
from inlay.api.programs import cluster_of, search_partition
from inlay.cost import Price
from inlay.hardware import Cluster, device_kind
from inlay.partitioner import Search, best_plans, floor_plans
from inlay.runtime.judged import build_candidate
from inlay.specs.partition import Partition

CASES_FOLDER = ROOT / "examples" / "cases"
BEST = 5
QUIET_SECONDS = 600.0
TURN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """A builder, a cluster, and what is expected of them."""

    name: str
    title: str
    builder: str
    cluster: str = "local"

    def model(self, *, small: bool) -> api.CapturedModel:
        return api.capture_file(f"{CASES_FOLDER / self.builder}:{'build_small' if small else 'build'}", progress=say)

    def place(self) -> Cluster:
        return cluster_of("local" if self.cluster == "local" else CASES_FOLDER / self.cluster)


CASES = (
    Case("single", "One device takes all of it", "single.py"),
    Case("memory", "Two devices, for memory", "decoder.py", "memory.yaml"),
    Case("memory-contrary", "Two unlike devices, for memory", "decoder.py", "memory-contrary.yaml"),
    Case("unsupported", "Two devices, for unsupported operators", "unsupported.py", "unsupported.yaml"),
    Case("specialists", "Two frameworks, each on the blocks it is faster at", "specialists.py"),
)
Shape = tuple[tuple[int, int, str, bool], ...]


@dataclass(frozen=True)
class Judged:
    """A plan to be judged: what it is called, and whether it is a single place."""

    name: str
    plan: Partition
    floor: bool


def shape(plan: Partition) -> Shape:
    """What tells two plans apart."""
    return tuple((item.first, item.end, str(item.place), item.fused or item.end - item.first == 1) for item in plan.regions)


def contestants(search: Search, chosen: Partition) -> list[Judged]:
    """The chosen plan, the five best, and one single place of each kind of device and backend, each plan once."""
    known: dict[Shape, Judged] = {}
    kinds: set[tuple[str, str]] = set()
    for plan in floor_plans(search):
        place = plan.regions[0].place
        kind = (device_kind(plan.cluster, place.device), place.backend)
        if kind not in kinds:
            known.setdefault(shape(plan), Judged(f"all at {place}", plan, True))
        kinds.add(kind)
    for number, plan in enumerate(best_plans(search, BEST), 1):
        known.setdefault(shape(plan), Judged(f"number {number}", plan, False))
    known.setdefault(shape(chosen), Judged("chosen", chosen, False))
    return list(known.values())


def blocks(search: Search) -> list[dict[str, Any]]:
    """What the search measured of each block: milliseconds of one pass by backend, or why it cannot be."""
    found = []
    for block in search.chain.blocks:
        row: dict[str, Any] = {"block": block.name}
        for place in search.places:
            price = search.prices().block(block.index, place)
            row.setdefault(place.backend, 1e3 * price.seconds.value if isinstance(price, Price) else price.reason)
        found.append(row)
    return found


def judge(case: Case, options: argparse.Namespace, work: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Search, build, verify what was chosen, and run all in turn."""
    load = wait_for_quiet(options.wait)
    model, cluster = case.model(small=options.quick), case.place()
    chosen, search = search_partition(model, cluster=cluster, rounds=options.search_rounds, progress=lambda text: None)
    say(f"{case.name}: {chosen.reason}")
    judged = contestants(search, chosen)
    folders = {}
    for number, item in enumerate(judged):
        folders[item.name] = work / f"{case.name}-{number}"
        say(f"{case.name}: compile {item.name}")
        api.compile(model, folders[item.name], plan=item.plan, cluster=cluster)
    name = next(item.name for item in judged if shape(item.plan) == shape(chosen))
    with api.load(folders[name], cluster=cluster) as opened:
        verified = opened.verify(seed=1)
    counted = {item.name: moved(folders[item.name], cluster) for item in judged}
    quick = min(item.plan.value.value for item in judged if item.plan.value is not None)
    passes = max(1, min(10, round(TURN_SECONDS / quick)))
    wait_for_quiet(options.wait)
    candidates = [build_candidate(item.name, folders[item.name], cluster=cluster, passes=passes) for item in judged]
    taken = race(candidates, openings=options.openings, rounds=options.rounds, label=case.name)
    return {
        "case": case.name,
        "title": case.title,
        "builder": case.builder,
        "cluster": case.cluster,
        "taken": facts["date"],
        "commit": facts["commit"],
        "load_before": round(load, 2),
        "openings": options.openings,
        "rounds_per_opening": options.rounds,
        "why": chosen.reason,
        "refused": [{"place": item.place, "reason": item.reason} for item in chosen.floors if item.seconds is None],
        "regions": [regions(item) for item in chosen.regions],
        "verified": {"passed": verified.passed, "relative_error": max(item.relative_error for item in verified.regions)},
        "blocks": blocks(search),
        **verdict(judged, name, taken, counted, passes),
    }


def regions(region: Any) -> dict[str, Any]:
    """A region of the chosen plan, as far as a reader wants it."""
    reasons = [item.reason for item in region.alternatives if item.seconds is None]
    return {
        "blocks": f"{region.first} to {region.end - 1}",
        "place": str(region.place),
        "why": region.reason,
        "cannot": reasons,
    }


def named(part: tuple[int, int, str, bool]) -> str:
    """A region in a few characters."""
    first, end, place, whole = part
    return f"{first}-{end - 1} {place}{'' if whole else ' by block'}"


def moved(folder: Path, cluster: Cluster) -> int:
    """Bytes that go from device to device in one run at the largest point."""
    with api.load(folder, cluster=cluster) as opened:
        return max(sum(opened.session.run(opened.random_inputs(point)).moved.values()) for point in opened.build.stored.points)


def verdict(
    judged: Sequence[Judged], chosen: str, taken: dict[str, Taken], counted: dict[str, int], passes: int
) -> dict[str, Any]:
    """Every plan against the best single place (against the best plan where there is none), and what is to be said."""
    floors = [item.name for item in judged if item.floor]
    rival = min(
        floors or [item.name for item in judged if item.name != chosen] or [chosen], key=lambda name: median(taken[name])
    )
    rows = [
        {
            "plan": item.name,
            "chosen": item.name == chosen,
            "single_place": item.floor,
            "regions": [
                f"{first}-{end - 1} {place}{'' if whole else ' by block'}" for first, end, place, whole in shape(item.plan)
            ],
            "predicted_ms": 1e3 * item.plan.value.value if item.plan.value is not None else None,
            "measured_ms": 1e3 * median(taken[item.name]) / passes,
            "against": ratio(taken[item.name], taken[rival]),
            "planned_bytes": sum(transfer.size for transfer in item.plan.transfers),
            "counted_bytes": counted[item.name],
            "rounds": [[round(value / passes, 7) for value in opening] for opening in taken[item.name]],
        }
        for item in judged
    ]
    figure = ratio(taken[chosen], taken[rival])
    place = "the best single place" if floors else "the best other plan, since no single place can take it"
    if rival == chosen:
        said = "the chosen plan is the best single place"
    elif figure.low > 1:
        said = f"the chosen plan is SLOWER than {place}"
    elif figure.high < 1:
        said = f"the chosen plan is faster than {place}"
    else:
        said = f"the chosen plan and {place} cannot be told apart"
    return {"passes": passes, "rival": rival, "plans": rows, "ratio": figure, "verdict": said, "never_slower": figure.low <= 1}


def main() -> None:
    """Parses, judges, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--openings", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--search-rounds", type=int, default=10)
    parser.add_argument("--wait", type=float, default=QUIET_SECONDS, help=f"seconds to wait for a load below {QUIET_LOAD}")
    parser.add_argument("--quick", action="store_true", help="small models where there are, two openings of three rounds")
    parser.add_argument("--cache", type=Path, help="keep lowered code in this folder; its timings are dropped")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.openings, options.rounds, options.search_rounds, options.wait = 2, 3, 3, 0.0
    facts, names = environment(), options.cases.split(",")
    records = kept_records(options.out / "plans.json", "case", names)
    with tempfile.TemporaryDirectory(prefix="inlay-plans-") as temporary:
        cache = (options.cache or Path(temporary) / "cache").resolve()
        os.environ["INLAY_CACHE"] = str(cache)
        (cache / "profiles" / "profiles.jsonl").unlink(missing_ok=True)
        for case in CASES:
            if case.name in names:
                records.append(judge(case, options, Path(temporary), facts))
    order = [case.name for case in CASES]
    records.sort(key=lambda item: order.index(item["case"]))
    facts |= {"openings": options.openings, "rounds_per_opening": options.rounds}
    write_result(
        "plans",
        title="Plans, judged",
        facts=facts,
        records=records,
        text=page(records, turn_seconds=TURN_SECONDS),
        folder=options.out,
    )


if __name__ == "__main__":
    main()
