"""Places published instances, random ones and a large one: value, bound, time, beside what is known of them.

    python benchmarks/placement.py [FOLDER]

FOLDER (default: the published ones) holds files in the format of github.com/msr-fiddle/dnn-partitioning under `throughput/`
and `latency/`, and, where the answers are known, `values.json`. Each file gets `--seconds`; what is not proven by then has its
bound printed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import HERE, RESULTS, environment, table, write_result
from published_instances import host_count, read_instance

from inlay.partitioner.placement import (
    DeviceKind,
    Placement,
    TaskGraph,
    TaskValue,
    check_placement,
    is_compiled,
    place,
    run_placement,
)

INSTANCES = HERE / "data" / "partition_instances"
LARGE = (10_000, 16, 60.0)
ROUNDING = {"throughput": 1e-6, "latency": 1e-4}


def main() -> None:
    """Place everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=INSTANCES)
    parser.add_argument("--seconds", type=float, default=300.0, help="limit for one file")
    parser.add_argument("--only", default="", help="files with this in their names")
    parser.add_argument("--no-large", action="store_true")
    given = parser.parse_args()
    known, facts = known_values(given.folder), environment()
    warm_up()
    rows = []
    for path in sorted(given.folder.glob("*/**/*.json")):
        name = path.relative_to(given.folder).as_posix()
        objective = name.partition("/")[0]
        if objective in ROUNDING and given.only in name:
            graph = read_instance(path, hosts=host_count(path) if objective == "throughput" else None)
            rows.append(row(name, graph, objective, given.seconds, known.get(name, {})))
            print(" | ".join(cells(rows[-1])), flush=True)
    large = None if given.no_large else large_row()
    records = {"compiled": is_compiled(), "rows": rows, "large": large}
    write_result("placement", title="Placements", facts=facts, records=records, text=page(rows, large), folder=RESULTS)


def known_values(folder: Path) -> dict[str, dict[str, Any]]:
    """What `values.json` says of each file."""
    path = folder / "values.json"
    return {item["file"]: item for item in json.loads(path.read_text())["instances"]} if path.is_file() else {}


def warm_up() -> None:
    """Compile the kernels, which is done once and kept on disk, before anything is timed."""
    place(synthetic_graph(12, 2), "throughput", seconds=60)


def row(name: str, graph: TaskGraph, objective: str, seconds: float, known: dict[str, Any]) -> dict[str, Any]:
    """One file: what was found, in what time, and whether that is as good as what is known."""
    begun = time.monotonic()
    found = place(graph, objective, seconds=seconds)
    spent = time.monotonic() - begun
    best = known.get("best")
    result: dict[str, Any] = {
        "file": name,
        "tasks": graph.count,
        "seconds": spent,
        "known": best,
        "status": known.get("status", ""),
    }
    if found is None:
        return {**result, "value": None, "bound": None, "method": "nothing was found", "as_good": False}
    check_placement(graph, found.pieces)
    good = best is None or found.value <= best * (1 + ROUNDING[objective])
    return {**result, **numbers(found), "as_good": good, "known_bound": known.get("lower_bound")}


def numbers(found: Placement) -> dict[str, Any]:
    """A placement as plain numbers."""
    return {
        "value": found.value,
        "bound": found.bound,
        "gap": found.gap,
        "method": found.method,
        "pieces": [[piece.kind, len(piece.tasks)] for piece in found.pieces],
    }


def synthetic_graph(tasks: int, kinds: int, *, seed: int = 0) -> TaskGraph:
    """A made-up graph of layers with branches, and so many unlike devices, one of each, for trying how large a graph may be."""
    random = np.random.default_rng(seed)
    edges: list[tuple[int, int]] = []
    readers: dict[int, list[int]] = {}
    for task in range(1, tasks):
        near = range(max(0, task - 6), task)
        for other in {int(item) for item in random.choice(near, size=min(len(near), int(random.integers(1, 4))))}:
            edges.append((other, task))
            readers.setdefault(other, []).append(task)
    values = tuple(TaskValue(producer, tuple(held)) for producer, held in sorted(readers.items()))
    work, heavy = random.lognormal(0.0, 0.5, tasks), random.random(tasks) < 0.3
    size, bytes_moved = random.lognormal(0.0, 0.5, tasks), random.lognormal(-2.0, 0.5, len(values))
    found = []
    for number in range(kinds):
        speed, at_heavy, link = random.uniform(0.5, 4.0), random.uniform(0.5, 3.0), random.uniform(0.5, 2.0)
        seconds = work / speed / np.where(heavy, at_heavy, 1.0)
        moved = tuple((bytes_moved * link).tolist())
        capacity = float(size.sum() / kinds * random.uniform(2.0, 4.0))
        found.append(DeviceKind(f"device{number}", 1, tuple(seconds.tolist()), tuple(size.tolist()), moved, moved, capacity))
    return TaskGraph(tasks, tuple(edges), values, tuple(found))


def large_row() -> dict[str, Any]:
    """A made-up graph of many tasks on many unlike devices."""
    tasks, kinds, seconds = LARGE
    graph = synthetic_graph(tasks, kinds)
    begun = time.monotonic()
    found = run_placement(graph, seconds=seconds * 0.8)
    spent = time.monotonic() - begun
    assert found is not None
    check_placement(graph, found.pieces)
    return {"tasks": tasks, "devices": kinds, "seconds": spent, **numbers(found)}


def cells(item: dict[str, Any]) -> list[str]:
    """A row of the table."""
    known = "" if item["known"] is None else f"{item['known']:,.3f}"
    seconds = f"{item['seconds']:.1f}"
    if item["value"] is None:
        return [item["file"], str(item["tasks"]), "-", "-", "-", known, "**no**", seconds]
    proof = "optimal" if item["gap"] <= 1e-9 else f"{100 * item['gap']:.2f} %"
    good = "yes" if item["as_good"] else "**no**"
    value, bound = f"{item['value']:,.3f}", f"{item['bound']:,.3f}"
    return [item["file"], str(item["tasks"]), value, bound, proof, known, good, seconds]


def page(rows: list[dict[str, Any]], large: dict[str, Any] | None) -> str:
    """What a person reads."""
    proven = sum(item["value"] is not None and item["gap"] <= 1e-9 for item in rows)
    head = ["file", "tasks", "value", "bound", "gap", "known", "as good", "s"]
    text = (
        f"Files of Tarnawski et al., NeurIPS 2020 (MIT), in their own units of time; *known* is the best value known before. "
        f"One core; kernels {'compiled, beforehand' if is_compiled() else 'in plain Python'}. {proven} of {len(rows)} are "
        f"proven optimal by the solver itself. No bracket is shown: nothing here is sampled, and times are single runs.\n\n"
        f"{table(head, [cells(item) for item in rows])}\n"
    )
    if large is None:
        return text
    return text + (
        f"\nA made-up graph of {large['tasks']:,} tasks on {large['devices']} unlike devices with memory limits, throughput: "
        f"{large['value']:.2f}, bound {large['bound']:.2f}, gap {100 * large['gap']:.1f} % after {large['seconds']:.0f} s "
        f"({large['method']}). The bound does not know that a piece must be contiguous.\n"
    )


if __name__ == "__main__":
    main()
