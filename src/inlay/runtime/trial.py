"""Carry out a trial: two plans made into Builds and run in turn, so that whatever slows the machine slows both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from inlay.errors import InlayError
from inlay.hardware import Cluster
from inlay.runtime.assemble import compile_partition
from inlay.runtime.cache import Cache
from inlay.runtime.compare import compare
from inlay.runtime.intervals import ratio_interval
from inlay.runtime.judged import build_candidate
from inlay.specs.partition import Partition, Trial, dump_partition
from inlay.specs.profile import Estimate

Progress = Callable[[str], None]
OPENINGS = 2
ROUNDS = 8
SECONDS = 8.0
"""Of one opening. Both are closed and opened again, the other first: where a process's memory lands moves its times."""
TURN_SECONDS = 0.05
MOST_PASSES = 20


def run_trial(
    trial: Trial,
    folder: Path,
    *,
    cache: Cache,
    cluster: Cluster,
    options: Mapping[str, Mapping[str, str]] | None = None,
    progress: Progress = lambda text: None,
) -> Estimate | None:
    """The time of the plan as a share of its rival's, with its 95 % interval; None where either could not be run."""
    plans = {"plan": trial.plan, "rival": trial.rival}
    passes = max(1, min(MOST_PASSES, round(TURN_SECONDS / min(map(_seconds, plans.values())))))
    samples: dict[str, list[float]] = {name: [] for name in plans}
    with tempfile.TemporaryDirectory(prefix="inlay-trial-") as directory:
        try:
            candidates = []
            for name, plan in plans.items():
                target, text = Path(directory) / name, dump_partition(plan).encode()
                compile_partition(plan, folder, target, partition_text=text, cache=cache, options=options, progress=progress)
                candidates.append(build_candidate(name, target, cluster=cluster, passes=passes))
        except InlayError as error:
            progress(f"trial: {error.message}")
            return None
        for number in range(OPENINGS):
            progress(f"run the best plans in turn: {number} of {OPENINGS}")
            found = compare(candidates, rounds=ROUNDS, seconds=SECONDS)
            if found.failures:
                progress(f"trial: {next(iter(found.failures.values()))}")
                return None
            for name, taken in found.samples.items():
                samples[name] += taken
            candidates.reverse()
        progress(f"run the best plans in turn: {OPENINGS} of {OPENINGS}")
    count = min(map(len, samples.values()))
    return ratio_interval(samples["plan"][:count], samples["rival"][:count]) if count > 1 else None


def _seconds(plan: Partition) -> float:
    return plan.value.value if plan.value is not None else TURN_SECONDS
