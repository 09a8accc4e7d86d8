"""Teacher-forced logits of one backend, through the real runner: prompt chunks of ragged width, then single tokens."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from serving import deployment

from inlay.backends.environment import environment_of, python_of
from inlay.engine.runner import ExtendRunner
from inlay.orchestrator.compiling import ensure_lowered
from inlay.runtime import load_region
from inlay.specs.device import BatchDone, Row, Submit

Array = np.ndarray[Any, Any]


def forced_error(folder: Path, backend: str, ids: tuple[int, ...], truth: Array, *, singles: int = 32) -> float:
    """Largest absolute difference to the reference's logits [len(ids), vocabulary], at every chunk end and single token.

    The sequence lies in slot 2 of 4, and its neighbours hold other rows, so that a wrong row shows. A backend that lives in
    an environment of its own is asked in a process of that.
    """
    if environment_of(backend) is not None:
        return _elsewhere(folder, backend, ids, truth, singles)
    wanted = deployment(folder, [backend], slots=4)
    place = f"cpu:0/{backend}"
    lowered = ensure_lowered(wanted, progress=lambda text: None)[place]
    region = load_region(lowered.directory, weights=lowered.weights, backend=backend, threads=1, options={})
    rooms, buckets = wanted.slots_by_capacity, region.manifest.buckets
    runner = ExtendRunner(region.executable, region.stage, rooms=rooms, buckets=buckets)
    rng = random.Random(3)
    worst, at = 0.0, 0
    while at < len(ids):
        width = 1 if len(ids) - at <= singles else min(rng.randint(1, wanted.chunk), len(ids) - singles - at)
        row = Row(sequence=1, slot=2, tokens=ids[at : at + width], past_length=at)
        runner.submit(Submit(batch=at, phase="x", capacity=wanted.capacities[-1], first=2, count=1, width=width, rows=(row,)))
        outcome = None
        while outcome is None:
            outcome = runner.poll()
        assert isinstance(outcome, BatchDone), outcome
        at += width
        worst = max(worst, float(np.abs(runner.logits_of(1) - truth[at - 1]).max()))
    region.executable.close()
    return worst


def _elsewhere(folder: Path, backend: str, ids: tuple[int, ...], truth: Array, singles: int) -> float:
    given = json.dumps({"folder": str(folder), "backend": backend, "ids": ids, "truth": truth.tolist(), "singles": singles})
    here = str(Path(__file__).parent)
    found = subprocess.run(
        [python_of(backend), __file__], input=given, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here}
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return float(found.stdout.splitlines()[-1])


def main() -> None:
    """What `_elsewhere` starts: the question as JSON on stdin, the error on the last line of stdout."""
    asked = json.load(sys.stdin)
    truth = np.array(asked["truth"], np.float32)
    print(forced_error(Path(asked["folder"]), asked["backend"], tuple(asked["ids"]), truth, singles=asked["singles"]))


if __name__ == "__main__":
    main()
