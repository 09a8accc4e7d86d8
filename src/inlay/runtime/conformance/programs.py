"""Whole programs through the kit: captured, asked about, lowered in blocks and as one piece, and opened as `inlay run` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from inlay.errors import InlayError
from inlay.graph import Piece, Program, piece_of
from inlay.hardware import probe
from inlay.runtime.conformance.comparing import fault_of
from inlay.runtime.conformance.executing import described
from inlay.runtime.conformance.trials import Subject, Trial
from inlay.runtime.conformance.units import load_values
from inlay.runtime.conformance.world import World
from inlay.runtime.device import PieceConfig, RegionConfig
from inlay.runtime.opening import initial_values
from inlay.runtime.session import Plan, Process, Session
from inlay.runtime.store import StoredProgram, piece_weights, read_program, read_weights
from inlay.specs.artifact import WeightMap
from inlay.specs.conformance import NOT_REACHED, Case

SESSIONS = 2
"""Opened side by side at most."""
Progress = Callable[[str], None]


@dataclass(slots=True)
class Prepared:
    """A subject that was lowered, or why not. `runs` are the pieces (first and end block) that are opened, with artifacts;
    `whole` is the artifact of all of it in one piece."""

    subject: Subject
    stored: StoredProgram
    weights: WeightMap
    unsupported: str = ""
    failed: str = ""
    late: bool = False
    runs: dict[tuple[int, int], str] = field(default_factory=dict)
    whole: str = ""

    @property
    def usable(self) -> bool:
        return not self.unsupported and not self.failed

    def case(self, name: str) -> Case:
        """The case of this name where it is not usable."""
        if self.late:
            return Case(name, "skipped", reason=NOT_REACHED)
        return Case(name, "unsupported" if self.unsupported else "failed", reason=self.unsupported or self.failed)

    def piece(self) -> Piece:
        """All of it."""
        return piece_of(self.stored.cut, 0, len(self.stored.cut.blocks))


def prepare(world: World, names: Sequence[str], *, cut: bool, progress: Progress) -> dict[str, Prepared]:
    """The subjects of these names, captured and lowered, or with a reason. With `cut` they are opened block by block."""
    missing = [name for name in names if not world.has(f"example-{name}")]
    jobs = [{"name": f"example-{name}", "example": name, "stage": False} for name in missing]
    found = world.capture(jobs, done=lambda count: progress(f"capture programs: {count} of {len(jobs)}"))
    for name, result in found.items():
        if reason := described(result):
            raise world.unusable(f"{name}: {reason}")
    prepared: dict[str, Prepared] = {}
    for name in names:
        subject = msgspec.convert(world.read(f"example-{name}"), Subject)
        folder = Path(subject.folder)
        prepared[name] = Prepared(subject, read_program(folder), read_weights(folder))
        prepared[name].unsupported = _refused(world, prepared[name].stored.cut.program)
    _lower(world, [item for item in prepared.values() if item.usable], cut, progress)
    return prepared


def _refused(world: World, program: Program) -> str:
    """The first node that the backend does not take, with its reason; "" where it takes all."""
    capability = world.backend.supports(program, device="cpu:0")
    known = {node.name: node for node in program.nodes}
    refused = [item for item in capability.nodes if not item.supported and item.node in known]
    return f"{known[refused[0].node].operator}: {refused[0].reason}" if refused else ""


def _lower(world: World, items: Sequence[Prepared], cut: bool, progress: Progress) -> None:
    jobs = []
    for item in items:
        jobs.append({"name": item.subject.name, "folder": item.subject.folder, "pieces": _pieces(item, cut)})
    total = len(jobs)
    found = world.jobs(
        "inlay.runtime.conformance.lowering:main", jobs, done=lambda count: progress(f"lower programs: {count} of {total}")
    )
    for item in items:
        result = found.get(item.subject.name, {"lost": NOT_REACHED})
        if reason := described(result):
            item.failed, item.late = f"lower: {reason}", reason == NOT_REACHED
            continue
        reasons = [piece["reason"] for piece in result["pieces"] if piece["reason"]]
        found_runs = {(piece["first"], piece["end"]): piece["key"] for piece in result["pieces"]}
        item.failed = f"lower: {reasons[0]}" if reasons else ""
        item.whole = found_runs[0, len(item.stored.cut.blocks)]
        item.runs = {(first, end): found_runs[first, end] for first, end in _opened(item, cut)}


def _opened(item: Prepared, cut: bool) -> list[tuple[int, int]]:
    count = len(item.stored.cut.blocks)
    return [(at, at + 1) for at in range(count)] if cut else [(0, count)]


def _pieces(item: Prepared, cut: bool) -> list[tuple[int, int]]:
    """All that is lowered of a subject: what is opened, and the whole."""
    return list(dict.fromkeys([*_opened(item, cut), (0, len(item.stored.cut.blocks))]))


def open_subject(world: World, item: Prepared, *, environment: Mapping[str, str] | None = None) -> Session:
    """The process of a subject, its blocks loaded as the pieces of one region, as `inlay run` opens a Build."""
    cluster = probe()
    device = next(iter(cluster.devices))
    pieces = []
    for (first, end), key in item.runs.items():
        piece = piece_of(item.stored.cut, first, end)
        pieces.append(
            PieceConfig(
                name=item.stored.cut.blocks[first].name,
                directory=str(world.cache.artifact(key)),
                weights=piece_weights(item.weights, piece),
                inputs=piece.inputs,
                outputs=piece.outputs,
            )
        )
    region = RegionConfig(id="r0", backend=world.backend.name, threads=1, pieces=tuple(pieces))
    program = item.stored.cut.program
    plan = Plan(
        processes=(Process(name=device, device=device, python=world.python, regions=(region,)),),
        order=("r0",),
        inputs=program.inputs,
        results=tuple(dict.fromkeys(program.outputs)),
        states=program.states,
        initial=initial_values(program, item.weights),
        ranges=program.ranges,
    )
    return Session(plan, cluster=cluster, environment=environment)


def run_trials(session: Session, trials: Sequence[Trial]) -> list[tuple[float, str]]:
    """Error and fault of each trial in turn; an error of the run is a fault."""
    found = []
    for trial in trials:
        values = load_values(Path(trial.values))
        inputs = {name.removeprefix("in "): array for name, array in values.items() if name.startswith("in ")}
        truth = {name.removeprefix("out "): array for name, array in values.items() if name.startswith("out ")}
        try:
            results = session.run(inputs).values
        except InlayError as error:
            found.append((float("inf"), error.message))
            continue
        errors = [fault_of(results[name], array) for name, array in truth.items()]
        found.append((max(error for error, _ in errors), next((fault for _, fault in errors if fault), "")))
    return found


def each_opened(world: World, items: Sequence[Prepared], progress: Progress, what: str) -> dict[str, list[tuple[float, str]]]:
    """All trials of each subject in a session of its own; two are open at a time."""
    done = 0

    def work(item: Prepared) -> list[tuple[float, str]]:
        nonlocal done
        try:
            with open_subject(world, item) as session:
                found = run_trials(session, item.subject.trials)
        except InlayError as error:
            found = [(float("inf"), " ".join(error.message.split())[:300])] * len(item.subject.trials)
        done += 1
        progress(f"{what}: {done} of {len(items)}")
        return found

    with ThreadPoolExecutor(max_workers=SESSIONS) as pool:
        results = list(pool.map(work, items))
    return {item.subject.name: result for item, result in zip(items, results, strict=True)}


def case_of(name: str, found: Sequence[tuple[float, str]]) -> Case:
    """Several trials as one case."""
    faults = [fault for _, fault in found if fault]
    errors = [error for error, _ in found if error < float("inf")]
    error = float(f"{max(errors):.1e}") if errors else None
    return Case(name, "failed" if faults else "passed", len(found), error, faults[0] if faults else "")


def job_result(result: Mapping[str, Any] | None, run: int = 0) -> str:
    """What went wrong with one run of an executing job."""
    if result is None:
        return NOT_REACHED
    return described(result) or described(result["runs"][run])
