"""A stream of inputs through a cut over two devices, against one framework with the same cores, all in turn.

    python benchmarks/streams.py [--models encoder,decoder] [--openings N] [--rounds N] [--count N] [--wait S]

*Pipelined*: the plan for throughput over two devices of one core each. *One*: all of it at one place with both cores, for each
framework. *Replicas*: the best framework twice, each on a core of its own with half of the inputs. Plans are chosen on one set
of timings and judged here on another. No figure is asserted on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, as_spread, environment, say, show, table, write_result
from openings import Taken, median, ratio, wait_for_quiet

from inlay import api
from inlay.hardware import Cluster, Device, Node
from inlay.specs.partition import Partition

FRAMEWORKS = ("openvino", "onnxruntime", "inductor")
MODELS = {
    "encoder": (f"{ROOT / 'examples' / 'encoder.py'}:build", 60),
    "decoder": (f"{ROOT / 'examples' / 'cases' / 'decoder.py'}:build", 12),
    "specialists": (f"{ROOT / 'examples' / 'cases' / 'specialists.py'}:build", 60),
}
QUIET_SECONDS = 600.0


@dataclass
class Contestant:
    """Builds that share a stream, each with an equal part of it."""

    name: str
    folders: list[Path]
    clusters: list[Cluster]
    plan: Partition
    opened: list[api.Opened] = field(default_factory=list)

    def open(self) -> None:
        self.opened = [api.load(folder, cluster=cluster) for folder, cluster in zip(self.folders, self.clusters, strict=True)]

    def close(self) -> None:
        for item in self.opened:
            item.close()
        self.opened = []

    def run(self, inputs: Sequence[dict[str, Any]]) -> float:
        """Seconds for one result, over the whole stream."""
        share = len(self.opened)
        parts = [inputs[at::share] for at in range(share)]
        begun = time.perf_counter()
        threads = [
            threading.Thread(target=_drain, args=(item, part)) for item, part in zip(self.opened[1:], parts[1:], strict=True)
        ]
        for thread in threads:
            thread.start()
        _drain(self.opened[0], parts[0])
        for thread in threads:
            thread.join()
        return (time.perf_counter() - begun) / len(inputs)


def _drain(opened: api.Opened, inputs: Sequence[dict[str, Any]]) -> None:
    for _ in opened.stream(inputs):
        pass


def cluster(*devices: Sequence[int]) -> Cluster:
    """One device for each group of cores."""
    named = {
        f"cpu:{at}": Device(name=f"cpu:{at}", node="local", chip="cpu", cores=tuple(cores)) for at, cores in enumerate(devices)
    }
    return Cluster(nodes={"local": Node(name="local")}, devices=named)


def contestants(model: api.CapturedModel, work: Path, cores: Sequence[int]) -> list[Contestant]:
    """Everything that is compared, built."""
    apart, together = cluster(cores[:1], cores[1:2]), cluster(cores[:2])
    found = []
    plan = api.partition(model, cluster=apart, backends=FRAMEWORKS, minimize="throughput", progress=say)
    found.append(_built("pipelined", model, work, [apart], plan))
    alone: list[tuple[float, str, Partition]] = []
    for name in FRAMEWORKS:
        whole = api.partition(model, cluster=together, backends=[name], progress=say)
        found.append(_built(f"one, {name}", model, work, [together], whole))
        single = api.partition(model, cluster=cluster(cores[:1]), backends=[name], progress=say)
        alone.append((single.value.value if single.value else float("inf"), name, single))
    _, name, single = min(alone, key=lambda item: item[0])
    found.append(_built(f"replicas, {name}", model, work, [cluster(cores[:1]), cluster(cores[1:2])], single))
    return found


def _built(name: str, model: api.CapturedModel, work: Path, clusters: list[Cluster], plan: Partition) -> Contestant:
    folders = []
    for number, place in enumerate(clusters):
        folders.append(work / f"{name.replace(', ', '-')}-{number}")
        api.compile(model, folders[-1], plan=plan, cluster=place, progress=say)
    return Contestant(name, folders, clusters, plan)


def judge(name: str, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """One model: every contestant in turn, opened anew several times."""
    source, count = MODELS[name]
    model = api.capture_file(source, progress=say)
    cores = sorted(os.sched_getaffinity(0))
    found = contestants(model, work / name, cores)
    taken: dict[str, Taken] = {item.name: [] for item in found}
    wait_for_quiet(options.wait)
    for opening in range(options.openings):
        order = found[opening % len(found) :] + found[: opening % len(found)]
        for item in order:
            item.open()
        try:
            inputs = [found[0].opened[0].random_inputs(seed=number) for number in range(options.count or count)]
            for item in order:
                item.run(inputs)
                taken[item.name].append([])
            for _ in range(options.rounds):
                for item in order:
                    taken[item.name][-1].append(item.run(inputs))
        finally:
            for item in found:
                item.close()
        say(f"{name}: opening {opening + 1} of {options.openings}, load {os.getloadavg()[0]:.2f}")
    return record(name, model, found, taken, options.count or count)


def record(
    name: str, model: api.CapturedModel, found: Sequence[Contestant], taken: dict[str, Taken], count: int
) -> dict[str, Any]:
    """The figures of one model."""
    ours = taken["pipelined"]
    rivals = [item.name for item in found if item.name.startswith("one")]
    best = min(rivals, key=lambda item: median(taken[item]))
    plan = found[0].plan
    return {
        "model": name,
        "point": model.points[0],
        "count": count,
        "plan": [f"blocks {item.first}-{item.end - 1} at {item.place}" for item in plan.regions],
        "predicted": plan.value.value if plan.value else None,
        "best": best,
        "rows": [
            {
                "name": item.name,
                "milliseconds": 1e3 * median(taken[item.name]),
                "ratio": ratio(taken[item.name], taken[best]),
                "processes": len(item.folders),
            }
            for item in found
        ],
        "pipelined_of_best": ratio(ours, taken[best]),
    }


def page(records: Sequence[dict[str, Any]]) -> str:
    """What a person reads."""
    parts = [(__doc__ or "").split("\n\n", 2)[2].strip()]
    for item in records:
        rows = [[row["name"], f"{row['milliseconds']:.2f}", show(as_spread(row["ratio"]), 3)] for row in item["rows"]]
        ratio_ = as_spread(item["pipelined_of_best"])
        verdict = "wins" if ratio_.high < 1 else "loses" if ratio_.low > 1 else "is not told apart"
        parts.append(
            f"## {item['model']}, {item['point']}, streams of {item['count']}\n\n"
            f"Plan: {'; '.join(item['plan'])}.\n\n"
            f"{table(['way', 'ms a result', 'of the best single framework'], rows)}\n\n"
            f"Against {item['best']} with both cores the pipeline **{verdict}**: {show(ratio_, 3)} of its time."
        )
    return "\n\n".join(parts)


def main() -> None:
    """Judge the models and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--openings", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--count", type=int, default=0, help="inputs of a stream, by default as many as suit the model")
    parser.add_argument("--wait", type=float, default=QUIET_SECONDS, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("error: this machine has one core, expected two\nhint: there is nothing to compare")
    facts = environment()
    with tempfile.TemporaryDirectory() as work:
        records = [judge(name, options, Path(work)) for name in options.models.split(",")]
    write_result("streams", title="Streams", facts=facts, records=records, text=page(records), folder=RESULTS)


if __name__ == "__main__":
    main()
