"""Many small jobs in few processes: a job that kills its process, or hangs, costs itself and none of the others.

`run_jobs` is for those who want them done; `serve` is the loop inside the process, which tells each begin and end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.errors import InlayError
from inlay.workers import Worker, WorkerSpec, start

POLL_SECONDS = 0.05
JOB_SECONDS = 600.0
START_SECONDS = 120.0
Job = dict[str, Any]
Done = Callable[[int], None]
Keep = Callable[[str, dict[str, Any]], None]


@dataclass(slots=True)
class _Shard:
    """Jobs of one process, what it told so far, and the process."""

    jobs: list[Job]
    directory: Path
    worker: Worker | None = None
    read: int = 0
    at: str = ""
    since: float = 0.0

    @property
    def steps(self) -> Path:
        return self.directory / "steps.jsonl"


def run_jobs(
    program: str,
    jobs: Sequence[Job],
    config: Mapping[str, Any],
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    processes: int = 0,
    deadline: float | None = None,
    seconds: float = JOB_SECONDS,
    done: Done = lambda count: None,
    keep: Keep = lambda name, result: None,
) -> dict[str, dict[str, Any]]:
    """The result of every job by its name; one that ended its process has {"lost": why}, one not reached before `deadline`
    (of time.monotonic) none. `processes` is by default one for each core. `keep` is told each result as it comes."""
    count = max(1, min(processes or len(os.sched_getaffinity(0)), len(jobs)))
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="inlay-conform-") as directory:
        shards = [_Shard(list(jobs[index::count]), Path(directory) / str(index)) for index in range(count)]
        try:
            while any(shard.jobs for shard in shards):
                for shard in shards:
                    before = set(results)
                    _attend(shard, program, config, results, python, dict(environment or {}), seconds)
                    for name in [name for name in results if name not in before]:
                        keep(name, results[name])
                done(len(results))
                if deadline is not None and time.monotonic() > deadline:
                    return results
                time.sleep(POLL_SECONDS)
        finally:
            for shard in shards:
                if shard.worker is not None:
                    shard.worker.stop()
    return results


def _attend(
    shard: _Shard, program: str, config: Mapping[str, Any], results: dict[str, dict[str, Any]], python: str,
    environment: dict[str, str], seconds: float,
) -> None:  # fmt: skip
    """Start the shard's process where it has none, hear what it told, and take the job from it that it died or hangs at."""
    if not shard.jobs:
        return
    if shard.worker is None:
        shard.directory.mkdir(exist_ok=True)
        shard.steps.write_text("")
        shard.read, shard.at, shard.since = 0, "", time.monotonic()
        shard.worker = start(
            WorkerSpec(
                name=program.rpartition(".")[2].replace(":", "-"),
                program=program,
                run_directory=str(shard.directory),
                config={**config, "jobs": shard.jobs, "steps": str(shard.steps)},
                python=python,
                environment=environment,
            )
        )
    alive = shard.worker.alive()
    _hear(shard, results)
    limit = seconds if shard.at else START_SECONDS
    late = time.monotonic() - shard.since > limit
    if alive and not late and shard.jobs:
        return
    if shard.jobs:
        name = shard.at or shard.jobs[0]["name"]
        reason = f"was not done after {limit:.0f} s" if late else _ending(shard.worker)
        results[name] = {"lost": reason}
        shard.jobs = [job for job in shard.jobs if job["name"] != name]
    shard.worker.stop()
    shard.worker = None


def _hear(shard: _Shard, results: dict[str, dict[str, Any]]) -> None:
    lines = shard.steps.read_text().splitlines(keepends=True)
    for line in lines[shard.read :]:
        if not line.endswith("\n"):
            return
        shard.read += 1
        step = json.loads(line)
        shard.at, shard.since = step.get("begun", ""), time.monotonic()
        if "done" in step:
            results[step["done"]] = step["result"]
            shard.jobs = [job for job in shard.jobs if job["name"] != step["done"]]


def _ending(worker: Worker) -> str:
    """How the process ended, and the last thing it said, in one line."""
    first, _, said = worker.lost().message.partition("; its last lines:\n")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    status = first.partition(") ")[2] or first
    return f"the process {status}" + (f": {lines[-1][:200]}" if lines else "")


def serve(config: Mapping[str, Any], work: Callable[[Job], dict[str, Any]]) -> int:
    """Do every job of the config in turn, telling begin and end; an error is a result too."""
    with open(config["steps"], "a", buffering=1) as file:
        for job in config["jobs"]:
            file.write(json.dumps({"begun": job["name"]}) + "\n")
            try:
                result = work(job)
            except InlayError as error:
                result = {"error": {"code": error.code, "message": error.message}}
            except Exception as error:  # noqa: BLE001  # process edge: the parent gets a reason, not a traceback
                text = " ".join(str(error).split())[:300]
                result = {"error": {"code": "internal_error", "message": f"{type(error).__name__}: {text}"}}
            file.write(json.dumps({"done": job["name"], "result": result}) + "\n")
    return 0
