"""The sections models, dynamic shapes and state: programs run by the real session at every size they declare, and outside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from inlay.errors import InlayError
from inlay.graph import piece_of
from inlay.runtime.conformance.comparing import fault_of
from inlay.runtime.conformance.executing import Execution, Run, described
from inlay.runtime.conformance.programs import Prepared, Progress, case_of, each_opened, job_result
from inlay.runtime.conformance.trials import STAGES, StageSubject
from inlay.runtime.conformance.units import load_values
from inlay.runtime.conformance.world import World
from inlay.runtime.lowering import run_program
from inlay.runtime.store import piece_weights
from inlay.runtime.weights import read_weight_map
from inlay.specs.artifact import LowerRequest, ShapeBuckets
from inlay.specs.conformance import NOT_REACHED, Case

BUCKETS = ShapeBuckets(batches=(1, 2), widths=(1, 5, 7), capacities=(16, 32))
EXECUTING = "inlay.runtime.conformance.executing:main"


def try_programs(world: World, prepared: Mapping[str, Prepared], *, progress: Progress) -> tuple[list[Case], list[Case]]:
    """Cases of the sections models and dynamic shapes."""
    usable = [item for item in prepared.values() if item.usable]
    found = each_opened(world, usable, progress, "run programs")
    models, shapes = [], []
    for name, item in prepared.items():
        symbols = sorted(item.subject.trials[0].sizes)
        if not item.usable:
            models.append(item.case(name))
            shapes += [item.case(f"{name}: {symbol}") for symbol in symbols]
            continue
        results = found[name]
        models.append(case_of(name, results[:1]))
        for symbol in symbols:
            typical = item.subject.trials[0].sizes[symbol]
            varied = [
                result for trial, result in zip(item.subject.trials, results, strict=True) if trial.sizes[symbol] != typical
            ]
            shapes.append(case_of(f"{name}: {symbol}", varied))
    return models, shapes + _outside(world, usable)


def _outside(world: World, items: Sequence[Prepared]) -> list[Case]:
    """A size that was not declared must be an error that tells it: beyond the range, none, or between declared points."""
    jobs, asked = [], {}
    for item in items:
        first, key = next(iter(item.runs.items()))
        piece = piece_of(item.stored.cut, *first)
        typical = item.subject.trials[0].sizes
        sizes = [{**typical, symbol: size} for symbol in typical for size in _undeclared(world, item, symbol)]
        asked[item.subject.name] = sizes
        job = Execution(
            name=item.subject.name, directory=str(world.cache.artifact(key)), backend=world.backend.name,
            weights=piece_weights(item.weights, piece), inputs=piece.inputs, outputs=piece.outputs,
            runs=tuple(Run(sizes=size, refused=True) for size in sizes),
        )  # fmt: skip
        jobs.append(msgspec.to_builtins(job))
    found = world.jobs(EXECUTING, jobs)
    cases = []
    for name, sizes in asked.items():
        result = found.get(name)
        if result is None:
            cases.append(Case(f"{name}: sizes outside", "skipped", reason=NOT_REACHED))
            continue
        broken = described(result)
        faults = [broken] if broken else [_told(run, size) for run, size in zip(result["runs"], sizes, strict=True)]
        told = [fault for fault in faults if fault]
        cases.append(Case(f"{name}: sizes outside", "failed" if told else "passed", len(sizes), None, told[0] if told else ""))
    return cases


def _undeclared(world: World, item: Prepared, symbol: str) -> list[int]:
    declared = {trial.sizes[symbol] for trial in item.subject.trials}
    low, high = item.stored.cut.program.ranges[symbol]
    between = [] if world.backend.dynamic else [next(size for size in range(low, high) if size not in declared)]
    return [high + 1, *between]


def _told(run: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    if "error" not in run:
        return f"sizes {dict(sizes)} were run, expected an error that tells them"
    message = run["error"]["message"]
    told = any(str(size) in message for size in sizes.values())
    return "" if told else f"the error for sizes {dict(sizes)} does not tell them: {message[:120]}"


def try_states(world: World, prepared: Mapping[str, Prepared], *, progress: Progress) -> list[Case]:
    """Ten steps; each must find what the one before left, from first values that are not zero."""
    found = each_opened(world, [item for item in prepared.values() if item.usable], progress, "run states")
    return [
        case_of(f"{name}: ten steps", found[name]) if item.usable else item.case(f"{name}: ten steps")
        for name, item in prepared.items()
    ]


def try_stages(world: World, *, progress: Progress) -> list[Case]:
    """The stage programs of tiny language models: a prompt, a step, several tokens at once, rows of unlike pasts."""
    missing = [name for name in STAGES if not world.has(f"stage-{name}")]
    jobs = [{"name": f"stage-{name}", "example": name, "stage": True} for name in missing]
    for name, result in world.capture(jobs).items():
        if reason := described(result):
            raise world.unusable(f"{name}: {reason}")
    begun = 0

    def work(name: str) -> Case:
        nonlocal begun
        progress(f"lower and run stage programs: {begun} of {len(STAGES)}")
        begun += 1
        if world.late():
            return Case(name, "skipped", reason=NOT_REACHED)
        return _stage(world, msgspec.convert(world.read(f"stage-{name}"), StageSubject))

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(work, STAGES))


def _stage(world: World, subject: StageSubject) -> Case:
    request = LowerRequest(buckets=None if world.backend.dynamic else BUCKETS)
    config = {
        "model": subject.folder, "wanted": [[world.backend.name, msgspec.to_builtins(request)]], "cache": str(world.cache.root),
    }  # fmt: skip
    try:
        done = run_program("inlay.runtime.lower:main", config, progress=lambda text: None, seconds=600.0, python=world.python)
    except InlayError as error:
        refused = "does not take node" in error.message
        return Case(subject.name, "unsupported" if refused else "failed", reason=error.message)
    lowered = done["lowered"]
    weights = read_weight_map(Path(lowered["weights"]))
    assert weights is not None
    names = list(load_values(Path(subject.trials[0].values)))
    inputs, outputs = (
        tuple(name.removeprefix(f"{kind} ") for name in names if name.startswith(f"{kind} ")) for kind in ("in", "out")
    )
    runs = tuple(
        Run(sizes=trial.sizes, values=trial.values, results=str(world.scratch / f"{subject.name}-{number}.npz"))
        for number, trial in enumerate(subject.trials)
    )
    job = Execution(
        name=subject.name, directory=lowered["artifacts"][0]["directory"], backend=world.backend.name, weights=weights,
        inputs=inputs, outputs=outputs, runs=runs,
    )  # fmt: skip
    found = world.jobs(EXECUTING, [msgspec.to_builtins(job)]).get(subject.name)
    if found is None:
        return Case(subject.name, "skipped", reason=NOT_REACHED)
    results = []
    for number, trial in enumerate(subject.trials):
        if reason := job_result(found, number):
            results.append((float("inf"), reason))
            continue
        given, truth = load_values(Path(runs[number].results)), load_values(Path(trial.values))
        errors = [fault_of(given[f"out {name}"], truth[f"out {name}"]) for name in outputs]
        results.append((max(error for error, _ in errors), next((fault for _, fault in errors if fault), "")))
    return case_of(subject.name, results)
