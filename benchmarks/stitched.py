"""The price of a cut: one program whole, and in 2, 4 and 8 regions of the same framework, in one process and across processes.

    python benchmarks/stitched.py [--backends NAMES] [--openings N] [--rounds N] [--quick] [--out DIR]

The program is a decoder of 125 million parameters, at a prompt of 128 and at one token, and one of the same shape so small that
what is between regions shows. Rows of backends not named are kept from the last run. No figure is asserted on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from measuring import RESULTS, ROOT, Spread, as_spread, environment, kept_records, say, show, table, write_result
from openings import QUIET_LOAD, Taken, median, race, ratio, wait_for_quiet

from inlay import api
from inlay.api.programs import search_partition
from inlay.hardware import Cluster, probe
from inlay.partitioner import Search, reprice
from inlay.runtime.judged import build_candidate
from inlay.specs.partition import Partition, PlannedRegion

BUILDER = ROOT / "examples" / "cases" / "decoder.py"
COUNTS = (1, 2, 4, 8)
INSIDE, TWO, OWN = "one process", "two processes in turn", "a process each"
GOAL = 0.05
QUIET_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A program at one size, and how many passes make a turn."""

    function: str
    length: int
    passes: int

    def __str__(self) -> str:
        name = {"build": "125M", "build_small": "small", "build_plain": "plain"}[self.function]
        return f"{name}, [1, {self.length}]"


SUBJECTS = (Subject("build", 128, 1), Subject("build", 1, 5), Subject("build_small", 1, 20), Subject("build_plain", 1, 20))


def devices(count: int) -> Cluster:
    """The local machine with so many devices, on its first two cores in turn; those of one core share it."""
    local = probe()
    first = next(iter(local.devices.values()))
    cores = sorted(os.sched_getaffinity(0))[:2]
    made = {
        f"cpu:{number}": msgspec.structs.replace(
            first, name=f"cpu:{number}", cores=(cores[number % len(cores)],), memory=None, numa=None
        )
        for number in range(count)
    }
    return Cluster(nodes=local.nodes, devices=made, chips=local.chips)


def runs(blocks: int, count: int) -> Iterator[tuple[int, int]]:
    """First and end block of each of `count` regions: layers shared out evenly, the ends to the first and the last."""
    layers = blocks - 2
    edges = [0, *(1 + round(number * layers / count) for number in range(1, count)), blocks]
    return pairwise(edges)


def cut(search: Search, whole: Partition, count: int, places: Sequence[str], backend: str) -> Partition:
    """The whole in `count` regions on those devices in turn, each lowered whole; with the transfers that the plan predicts."""
    regions = tuple(
        PlannedRegion(id=f"r{number}", first=first, end=end, device=places[number % len(places)], backend=backend)
        for number, (first, end) in enumerate(runs(len(whole.blocks), count))
    )
    priced = reprice(search, msgspec.structs.replace(whole, regions=regions))
    fused = tuple(msgspec.structs.replace(region, fused=True) for region in priced.regions)
    return msgspec.structs.replace(priced, regions=fused)


def ways(count: int) -> Iterator[tuple[str, list[str]]]:
    """How so many regions are run, with the devices they take in turn."""
    yield INSIDE, ["cpu:0"]
    yield TWO, ["cpu:0", "cpu:1"][:count]
    if count > 2:
        yield OWN, [f"cpu:{number}" for number in range(count)]


@dataclass(frozen=True)
class Arm:
    """A Build of so many regions, run in one way."""

    way: str
    count: int
    folder: Path
    plan: Partition
    nodes: int


def build_all(function: str, backend: str, folder: Path, cluster: Cluster) -> list[Arm]:
    """Every Build of one program and backend; lowered once, whatever the devices."""
    model = api.capture_file(f"{BUILDER}:{function}", progress=say)
    whole, search = search_partition(model, cluster=cluster, backends=[backend], rounds=3, progress=lambda text: None)
    arms = []
    for count in COUNTS:
        for way, places in ways(count):
            plan = cut(search, whole, count, places, backend)
            target = folder / f"{function}-{backend}-{count}-{len(places)}"
            say(f"compile {target.name}")
            if not target.exists():
                api.compile(model, target, plan=plan, cluster=cluster)
            pieces = [search.chain.piece(region.first, region.end) for region in plan.regions]
            arms.append(Arm(way, count, target, plan, sum(len(piece.nodes) for piece in pieces)))
    return arms


def moved(arm: Arm, cluster: Cluster) -> dict[str, int]:
    """Bytes that went from device to device in one run at the point planned for, and what the plan said."""
    with api.load(arm.folder, cluster=cluster) as opened:
        outcome = opened.session.run(opened.random_inputs(arm.plan.points[0]))
    return {"counted": sum(outcome.moved.values()), "planned": sum(item.size for item in arm.plan.transfers)}


def rows(
    subject: Subject, backend: str, arms: Sequence[Arm], cluster: Cluster, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Records of one program at one size: inside a process first, then across; each against one region in the same race."""
    load = wait_for_quiet(options.wait)
    records = []
    for inside in (True, False):
        chosen = [arm for arm in arms if (arm.way == INSIDE) == inside]
        candidates = [
            build_candidate(
                f"{arm.way} {arm.count}",
                arm.folder,
                cluster=cluster,
                points=({"length": subject.length},),
                inside=inside,
                passes=subject.passes,
            )
            for arm in chosen
        ]
        found = race(candidates, openings=options.openings, rounds=options.rounds, label=f"{backend} {subject}")
        base = found[candidates[0].name]
        for arm, candidate in zip(chosen, candidates, strict=True):
            bytes_moved = moved(arm, cluster) if not inside and subject.function == "build" and subject.length == 128 else None
            records.append(record(subject, backend, arm, found[candidate.name], base, bytes_moved, load))
    return records


def record(
    subject: Subject, backend: str, arm: Arm, taken: Taken, base: Taken, moved: dict[str, int] | None, load: float
) -> dict[str, Any]:
    """One row."""
    against, whole = ratio(taken, base), median(base) / subject.passes
    cuts = arm.count - 1
    per_cut = [1e6 * whole * (figure - 1) / cuts for figure in (against.median, against.low, against.high)] if cuts else None
    return {
        "backend": backend,
        "subject": str(subject),
        "way": arm.way,
        "regions": arm.count,
        "nodes": arm.nodes,
        "milliseconds": 1e3 * median(taken) / subject.passes,
        "times_one_region": against,
        "microseconds_per_cut": Spread(*per_cut) if per_cut else None,
        "bytes_moved": moved,
        "load_before": round(load, 2),
        "rounds": [[round(value / subject.passes, 7) for value in opening] for opening in taken],
    }


HEAD = ("regions", "nodes", "ms a pass", "times one region", "us a cut", "bytes moved", "planned")


def page(records: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """The tables, and where the goal is missed."""
    parts = [
        "A decoder (12 layers 768 wide, 125 million parameters, float32, random weights) as one region and as 2, 4 and 8 "
        "regions of one framework, each region lowered whole; ids in, logits of the last position out. *Small* has 8 layers "
        "128 wide and the same vocabulary; *plain* has 8 feed-forward layers of that width and no attention. One thread a "
        "device. *One process*: all regions in a single process pinned to core 0; what passes between them is bound, never "
        "copied. *Two processes in turn*: regions alternate between a process on core 0 and one on core 1. *A process each*: "
        "even regions share core 0, odd ones core 1; they never run at the same time. Across processes a third one drives, "
        "and the baseline is one region in one device process with the same driver. "
        f"{options.openings} openings of {options.rounds} rounds each. A turn is one pass (5 of the decoder at one token, 20 "
        "of the small ones). *us a cut*: what a pass takes longer than with one region, over the cuts. *Nodes*: of the "
        "captured graph, over all regions; each region works masks and positions out anew. *Bytes moved*: counted by the "
        "device processes in one run at [1, 128]; *planned*: what the plan says."
    ]
    for backend in dict.fromkeys(item["backend"] for item in records):
        for subject in dict.fromkeys(item["subject"] for item in records):
            lines = [item for item in records if (item["backend"], item["subject"]) == (backend, subject)]
            if not lines:
                continue
            body = [line(item) for item in lines]
            first = lines[0]
            loads = f"Taken {first['taken']}, commit {first['commit'][:12]}, load average before: {first['load_before']}."
            parts.append(f"## {backend}: {subject}\n\n{table(('way', *HEAD), body)}\n\n{loads}")
    return "\n\n".join([*parts, "## The goal\n\n" + "\n".join(verdicts(records))])


def line(item: dict[str, Any]) -> list[str]:
    """One row of a table."""
    moved, per_cut = item["bytes_moved"], item["microseconds_per_cut"]
    return [
        item["way"],
        str(item["regions"]),
        str(item["nodes"]),
        f"{item['milliseconds']:.3f}",
        show(as_spread(item["times_one_region"]), 3),
        show(as_spread(per_cut), 0) if per_cut else "",
        str(moved["counted"]) if moved else "",
        str(moved["planned"]) if moved else "",
    ]


def verdicts(records: Sequence[dict[str, Any]]) -> list[str]:
    """At 8 regions in one process: at most 5 % more than one region, or not."""
    found = []
    for item in records:
        if item["way"] == INSIDE and item["regions"] == COUNTS[-1]:
            figure = as_spread(item["times_one_region"])
            verdict = "met" if figure.high <= 1 + GOAL else "met in the median" if figure.median <= 1 + GOAL else "missed"
            found.append(f"- {item['backend']}, {item['subject']}: {show(figure, 3)} times one region: {verdict}.")
    return [f"At most {GOAL:.0%} more at {COUNTS[-1]} regions in one process:", "", *found]


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="openvino,onnxruntime,inductor")
    parser.add_argument("--openings", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", type=float, default=QUIET_SECONDS, help=f"seconds to wait for a load below {QUIET_LOAD}")
    parser.add_argument("--quick", action="store_true", help="the small programs, two openings of three rounds")
    parser.add_argument("--work", type=Path, help="keep the Builds in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.openings, options.rounds, options.wait = 2, 3, 0.0
    facts, backends = environment(), options.backends.split(",")
    records = kept_records(options.out / "stitched.json", "backend", backends)
    subjects = SUBJECTS[2:] if options.quick else SUBJECTS
    cluster = devices(COUNTS[-1])
    with tempfile.TemporaryDirectory(prefix="inlay-stitched-") as temporary:
        work = options.work or Path(temporary)
        for backend in backends:
            built = {item: build_all(item, backend, work, cluster) for item in dict.fromkeys(s.function for s in subjects)}
            for subject in subjects:
                taken = {"taken": facts["date"], "commit": facts["commit"]}
                records += [item | taken for item in rows(subject, backend, built[subject.function], cluster, options)]
    facts |= {"openings": options.openings, "rounds_per_opening": options.rounds}
    text = page(records, options)
    write_result("stitched", title="The price of a cut", facts=facts, records=records, text=text, folder=options.out)


if __name__ == "__main__":
    main()
