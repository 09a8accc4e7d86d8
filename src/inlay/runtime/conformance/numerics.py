"""The sections numerics and capability: every sample captured, asked about, lowered, loaded, run and compared with the truth.

What the backend refuses, node by node, is unsupported. What it takes must be lowered, loaded and run, and be right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends import Backend
from inlay.errors import InputError
from inlay.graph import Program
from inlay.runtime.conformance.comparing import fault_of
from inlay.runtime.conformance.executing import Execution, Run, described
from inlay.runtime.conformance.units import Gathered, Group, Unit, load_values, operators_of, piece_of_units
from inlay.runtime.conformance.world import World
from inlay.runtime.conformance.zoo import call_names, zoo_digest
from inlay.runtime.store import piece_weights, read_program, read_weights
from inlay.specs.conformance import NOT_REACHED, Case

TOGETHER, FULL_TOGETHER = 32, 16
"""Cases whose samples are captured in one program."""
Progress = Callable[[str], None]


@dataclass(slots=True)
class Verdict:
    """Of one sample: an outcome of `specs.conformance`, its error, and the reason."""

    case: str
    outcome: str
    reason: str = ""
    error: float | None = None
    operators: tuple[str, ...] = ()
    promised: bool = False


@dataclass(slots=True)
class Numbers:
    """What the samples gave: a verdict for each, answers of `supports` that were no answers, and reasons by operator."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    bad_answers: list[str] = field(default_factory=list)
    answers: int = 0
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Set:
    """Units of one group that are tried together."""

    group: Group
    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        told = hashlib.sha256("|".join(unit.name for unit in self.units).encode()).hexdigest()[:12]
        return f"{self.group.name}-{told}"


def gather(world: World, *, full: bool, only: Sequence[str] = (), progress: Progress) -> list[Gathered]:
    """All samples of PyTorch's and of the models' calls, captured: from the cache where they were before. `only` limits them
    to cases that hold one of these texts."""
    kind = "full" if full else "sample"
    cases = world.kept(f"cases-{kind}-{zoo_digest()}", lambda: _listed(world, kind, progress))["cases"]
    jobs = []
    for names, size in ((call_names(), TOGETHER), (cases, FULL_TOGETHER if full else TOGETHER)):
        chosen = [case for case in names if not only or any(text in case for text in only)]
        for at in range(0, len(chosen), size):
            jobs.append(_capture_job(chosen[at : at + size], calls=names is not cases, samples=2 if full else 1))
    if only and not jobs:
        raise InputError(
            f"no case holds {' or '.join(map(repr, only))}", hint="names are as in PyTorch's op_db, such as softmax"
        )
    missing = [job for job in jobs if not world.has(job["name"])]

    def tell(done: int) -> None:
        progress(f"capture samples: {done} of {len(missing)}")

    found = world.capture(missing, done=tell)
    for job in missing:
        result = found.get(job["name"], {})
        reason = described(result)
        if reason or not result:
            told = reason or NOT_REACHED
            world.transient[job["name"]] = {"left_out": {f"{case} !0": f"capturing: {told}" for case in job["cases"]}}
    return [msgspec.convert(world.read(job["name"]), Gathered) for job in jobs]


def _capture_job(cases: Sequence[str], *, calls: bool, samples: int) -> dict[str, Any]:
    """A job of `capturing`; its name says all that its result depends on beside the sources."""
    told = f"{list(cases)} {samples} {zoo_digest() if calls else ''}"
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    return {"name": name, "cases": list(cases), "calls": list(cases) if calls else [], "samples": samples}


def _listed(world: World, kind: str, progress: Progress) -> dict[str, Any]:
    progress("list the samples of PyTorch")
    found = world.capture([{"name": "list", "list": kind}])["list"]
    if reason := described(found):
        raise world.unusable(reason)
    return found


def try_samples(world: World, gathered: Iterable[Gathered], *, progress: Progress) -> Numbers:
    """Every unit through supports, lower, load, run and compare; those that fail in company are tried alone."""
    numbers = Numbers()
    waiting: list[_Set] = []
    for item in gathered:
        for sample, reason in item.left_out.items():
            case = sample.rpartition(" !")[0] if " !" in sample else sample.rpartition(" #")[0]
            numbers.verdicts[sample] = Verdict(case, "skipped", reason)
        for group in item.groups:
            taken = _asked(world.backend, group, numbers)
            if taken:
                waiting.append(_Set(group, tuple(taken)))
    while waiting:
        lowered, again = _lower(world, waiting, numbers, progress)
        again += _execute(world, lowered, numbers, progress)
        waiting = again
        if world.late():
            for left in waiting:
                for unit in left.units:
                    numbers.verdicts[unit.name] = Verdict(unit.case, "skipped", NOT_REACHED)
            break
    return numbers


def _asked(backend: Backend, group: Group, numbers: Numbers) -> list[Unit]:
    """The units of which the backend takes every node; the others are unsupported. Its answers are judged on the way."""
    program = _program(group.folder)
    capability = backend.supports(program, device="cpu:0")
    answers = {item.node: item for item in capability.nodes}
    wanted = [node.name for node in program.nodes]
    numbers.answers += len(wanted)
    if sorted(item.node for item in capability.nodes) != sorted(wanted):
        strange = sorted(set(wanted) ^ set(answers)) or ["one of them twice"]
        numbers.bad_answers.append(f"group {group.name}: no single answer for {strange[0]}")
        return []
    taken = []
    known = {node.name: node for node in program.nodes}
    for unit in group.units:
        operators = operators_of(program, unit)
        piece = piece_of_units(program, [unit])
        refused = [answers[name] for name in piece.nodes if not answers[name].supported]
        for item in refused:
            numbers.refused.setdefault(known[item.node].operator, item.reason)
            if not item.reason.strip():
                numbers.bad_answers.append(f"{known[item.node].operator} is refused without a reason")
        if refused:
            node = known[refused[0].node]
            reason = f"{node.operator}: {refused[0].reason}"
            numbers.verdicts[unit.name] = Verdict(unit.case, "unsupported", reason, operators=operators)
        else:
            taken.append(unit)
    return taken


def _lower(
    world: World, waiting: Sequence[_Set], numbers: Numbers, progress: Progress
) -> tuple[list[tuple[_Set, str]], list[_Set]]:
    """What was lowered with its keys, and sets that ended the process and are to be tried in halves."""
    jobs = [{"name": item.name, "folder": item.group.folder, "units": msgspec.to_builtins(item.units)} for item in waiting]
    count = sum(len(item.units) for item in waiting)

    def tell(done: int) -> None:
        progress(f"lower {count} samples: {done} of {len(jobs)}")

    found = world.jobs("inlay.runtime.conformance.lowering:main", jobs, done=tell)
    lowered: list[tuple[_Set, str]] = []
    again: list[_Set] = []
    for item in waiting:
        result = found.get(item.name)
        by_name = {unit.name: unit for unit in item.units}
        if result is None:
            again.append(item)
        elif reason := described(result):
            again += _halves(item, f"compiling: {reason}", numbers)
        else:
            for part in result["sets"]:
                units = tuple(by_name[name] for name in part["units"])
                if part["reason"]:
                    _decide(numbers, item.group, units[0], f"lower: {part['reason']}")
                else:
                    lowered.append((_Set(item.group, units), part["key"]))
    return lowered, again


def _execute(world: World, lowered: Sequence[tuple[_Set, str]], numbers: Numbers, progress: Progress) -> list[_Set]:
    """Run and compare; what failed in company comes back to be tried alone."""
    jobs = []
    for item, key in lowered:
        program = _program(item.group.folder)
        piece = piece_of_units(program, item.units)
        weights = piece_weights(read_weights(Path(item.group.folder)), piece)
        run = Run(values=item.group.values, results=str(world.scratch / f"{item.name}.npz"))
        job = Execution(
            name=item.name, directory=str(world.cache.artifact(key)), backend=world.backend.name, weights=weights,
            inputs=piece.inputs, outputs=piece.outputs, runs=(run,),
        )  # fmt: skip
        jobs.append(msgspec.to_builtins(job))
    count = sum(len(item.units) for item, _ in lowered)

    def tell(done: int) -> None:
        progress(f"run {count} samples: {done} of {len(jobs)}")

    found = world.jobs("inlay.runtime.conformance.executing:main", jobs, done=tell, python=world.python)
    again: list[_Set] = []
    for item, _ in lowered:
        result = found.get(item.name)
        if result is None:
            again.append(item)
            continue
        reason = described(result) or described(result["runs"][0])
        if reason:
            again += _halves(item, f"running: {reason}", numbers)
        else:
            again += _compared(world, item, numbers)
    return again


def _compared(world: World, item: _Set, numbers: Numbers) -> list[_Set]:
    results = world.scratch / f"{item.name}.npz"
    found, truth = load_values(results), load_values(Path(item.group.values))
    results.unlink()
    again = []
    for unit in item.units:
        errors = [fault_of(found[f"out {name}"], truth[f"out {name}"]) for name in unit.outputs]
        faults = [fault for _, fault in errors if fault]
        if faults and len(item.units) > 1:
            again.append(_Set(item.group, (unit,)))
        else:
            _decide(numbers, item.group, unit, faults[0] if faults else "", max(error for error, _ in errors))
    return again


def _halves(item: _Set, reason: str, numbers: Numbers) -> list[_Set]:
    """Two sets of half the units, or the verdict on the only one."""
    if len(item.units) == 1:
        _decide(numbers, item.group, item.units[0], reason)
        return []
    half = len(item.units) // 2
    return [_Set(item.group, item.units[:half]), _Set(item.group, item.units[half:])]


def _decide(numbers: Numbers, group: Group, unit: Unit, reason: str, error: float | None = None) -> None:
    operators = _operators(group, unit)
    outcome = "failed" if reason else "passed"
    broken = reason.startswith(("lower: ", "compiling: "))
    numbers.verdicts[unit.name] = Verdict(unit.case, outcome, reason, error, operators, promised=broken)


def _operators(group: Group, unit: Unit) -> tuple[str, ...]:
    return operators_of(_program(group.folder), unit)


@lru_cache(maxsize=64)
def _program(folder: str) -> Program:
    return read_program(Path(folder)).cut.program


def cases_of(numbers: Numbers) -> tuple[Case, ...]:
    """The samples of each case together: failed where one failed, else passed where one passed, and so on."""
    by_case: dict[str, list[Verdict]] = {}
    for verdict in numbers.verdicts.values():
        by_case.setdefault(verdict.case, []).append(verdict)
    found = []
    for case in sorted(by_case):
        verdicts = by_case[case]
        outcome = next(
            item for item in ("failed", "passed", "unsupported", "skipped") if any(v.outcome == item for v in verdicts)
        )
        same = [verdict for verdict in verdicts if verdict.outcome == outcome]
        errors = [verdict.error for verdict in same if verdict.error is not None]
        reason = same[0].reason
        if outcome == "passed":
            reason = next((f"another sample: {v.reason}" for v in verdicts if v.outcome == "unsupported"), "")
        error = float(f"{max(errors):.1e}") if errors and max(errors) < float("inf") else None
        found.append(Case(case, outcome, len(same), error, reason))
    return tuple(found)
