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
from inlay.runtime.session import Plan, Session
from inlay.runtime.store import StoredProgram, piece_weights, read_program, read_weights
from inlay.specs.artifact import WeightMap
from inlay.specs.conformance import Case

SESSIONS = 2
"""Opened side by side at most."""
Progress = Callable[[str], None]


@dataclass(slots=True)
class Prepared:
    """A subject that was lowered, or why not. `blocks` are the artifacts of its blocks, `whole` the one of all of it."""

    subject: Subject
    stored: StoredProgram
    weights: WeightMap
    unsupported: str = ""
    failed: str = ""
    blocks: list[str] = field(default_factory=list)
    whole: str = ""

    @property
    def usable(self) -> bool:
        return not self.unsupported and not self.failed

    def case(self, name: str) -> Case:
        """The case of this name where it is not usable."""
        return Case(name, "unsupported" if self.unsupported else "failed", reason=self.unsupported or self.failed)

    def piece(self) -> Piece:
        """All of it."""
        return piece_of(self.stored.cut, 0, len(self.stored.cut.blocks))


def prepare(world: World, names: Sequence[str], *, progress: Progress) -> dict[str, Prepared]:
    """The subjects of these names, captured and lowered, or with a reason."""
    missing = [name for name in names if not world.has(f"example-{name}")]
    jobs = [{"name": f"example-{name}", "example": name, "stage": False} for name in missing]
    found = world.capture(jobs, done=lambda count: progress(f"capture programs: {count} of {len(jobs)}"))
    for name, result in found.items():
        if reason := described(result):
            raise world.unusable(f"{name}: {reason}")
        world.keep(name, result)
    prepared: dict[str, Prepared] = {}
    for name in names:
        subject = msgspec.convert(world.read(f"example-{name}"), Subject)
        folder = Path(subject.folder)
        prepared[name] = Prepared(subject, read_program(folder), read_weights(folder))
        prepared[name].unsupported = _refused(world, prepared[name].stored.cut.program)
    _lower(world, [item for item in prepared.values() if item.usable], progress)
    return prepared


def _refused(world: World, program: Program) -> str:
    """The first node that the backend does not take, with its reason; "" where it takes all."""
    capability = world.backend.supports(program, device="cpu:0")
    known = {node.name: node for node in program.nodes}
    refused = [item for item in capability.nodes if not item.supported and item.node in known]
    return f"{known[refused[0].node].operator}: {refused[0].reason}" if refused else ""


def _lower(world: World, items: Sequence[Prepared], progress: Progress) -> None:
    jobs = []
    for item in items:
        count = len(item.stored.cut.blocks)
        pieces = [*([at, at + 1] for at in range(count)), *([[0, count]] if count > 1 else [])]
        jobs.append({"name": item.subject.name, "folder": item.subject.folder, "pieces": pieces})
    total = len(jobs)
    found = world.jobs(
        "inlay.runtime.conformance.lowering:main", jobs, done=lambda count: progress(f"lower programs: {count} of {total}")
    )
    for item in items:
        result = found.get(item.subject.name, {"lost": "not reached within the time of the sample"})
        if reason := described(result):
            item.failed = f"lower: {reason}"
            continue
        reasons = [piece["reason"] for piece in result["pieces"] if piece["reason"]]
        keys = [piece["key"] for piece in result["pieces"]]
        item.failed = f"lower: {reasons[0]}" if reasons else ""
        item.blocks, item.whole = keys[: len(item.stored.cut.blocks)], keys[-1]


def open_subject(world: World, item: Prepared, *, environment: Mapping[str, str] | None = None) -> Session:
    """The process of a subject, its blocks loaded as the pieces of one region, as `inlay run` opens a Build."""
    cluster = probe()
    device = next(iter(cluster.devices))
    pieces = []
    for at, key in enumerate(item.blocks):
        piece = piece_of(item.stored.cut, at, at + 1)
        pieces.append(
            PieceConfig(
                name=item.stored.cut.blocks[at].name,
                directory=str(world.cache.artifact(key)),
                weights=piece_weights(item.weights, piece),
                inputs=piece.inputs,
                outputs=piece.outputs,
            )
        )
    region = RegionConfig(id="r0", backend=world.backend.name, threads=1, pieces=tuple(pieces))
    program = item.stored.cut.program
    plan = Plan(
        devices=((device, (region,)),),
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
        return "not reached within the time of the sample"
    return described(result) or described(result["runs"][run])
