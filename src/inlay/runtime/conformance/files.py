"""The sections save and load, and cache: artifacts elsewhere, damaged artifacts, and programs that look alike."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from inlay.graph import piece_of
from inlay.runtime.cache import MANIFEST_FILE, read_manifest
from inlay.runtime.conformance.comparing import fault_of
from inlay.runtime.conformance.executing import Execution, Run
from inlay.runtime.conformance.programs import Prepared, Progress, job_result
from inlay.runtime.conformance.trials import PAIRS, ROWS, side_name
from inlay.runtime.conformance.units import load_values
from inlay.runtime.conformance.world import World
from inlay.runtime.store import WEIGHTS_FOLDER, piece_weights
from inlay.runtime.weights import read_weight_map
from inlay.specs.conformance import NOT_REACHED, Case

EXECUTING = "inlay.runtime.conformance.executing:main"
MODEL_CODE = ("transformers", "inlay.runtime.conformance.models", "inlay.runtime.conformance.capturing", "onnx")


def try_files(world: World, item: Prepared) -> list[Case]:
    """A lowered program copied elsewhere, loaded by a process that has never seen the model; then damaged in two ways."""
    names = (
        f"{item.subject.name}: loaded elsewhere without the model",
        f"{item.subject.name}: a damaged file is told",
        f"{item.subject.name}: another version is told",
    )
    if not item.usable:
        return [item.case(name) for name in names]
    copies = [_copy(world, item, f"copy-{number}") for number in range(3)]
    code = max((copies[1] / "code").iterdir(), key=lambda path: path.stat().st_size if path.name != MANIFEST_FILE else 0)
    content = bytearray(code.read_bytes())
    content[len(content) // 2] ^= 1
    code.write_bytes(content)
    manifest = read_manifest(copies[2] / "code")
    changed = msgspec.structs.replace(manifest, fingerprint={**manifest.fingerprint, "inlay-lowering": "0"})
    (copies[2] / "code" / MANIFEST_FILE).write_bytes(msgspec.json.encode(changed))
    results = [_executed(world, item, folder) for folder in copies]
    return [
        _case(names[0], _loaded(world, item, results[0], copies[0])),
        _case(names[1], _said(results[1], "artifact_unusable", code.name)),
        _case(names[2], _said(results[2], "artifact_unusable", "lowered with")),
    ]


def _copy(world: World, item: Prepared, name: str) -> Path:
    """Code and weights of the whole program in a folder of their own."""
    folder = world.scratch / name
    shutil.copytree(world.cache.artifact(item.whole), folder / "code")
    shutil.copytree(Path(item.subject.folder) / WEIGHTS_FOLDER, folder / WEIGHTS_FOLDER)
    return folder


def _executed(world: World, item: Prepared, folder: Path, *, code: Path | None = None) -> dict[str, Any] | None:
    piece = item.piece()
    weights = read_weight_map(folder / WEIGHTS_FOLDER)
    assert weights is not None
    trial = item.subject.trials[0]
    job = Execution(
        name=folder.name, directory=str(code or folder / "code"), backend=world.backend.name,
        weights=piece_weights(weights, piece), inputs=piece.inputs, outputs=piece.outputs,
        runs=(Run(sizes=trial.sizes, values=trial.values, results=str(world.scratch / f"{folder.name}.npz")),),
    )  # fmt: skip
    return world.jobs(EXECUTING, [msgspec.to_builtins(job)]).get(folder.name)


def _loaded(world: World, item: Prepared, result: Mapping[str, Any] | None, folder: Path) -> str:
    if reason := job_result(result):
        return reason
    assert result is not None
    strange = [name for name in result["modules"] if name in MODEL_CODE]
    needs_torch = world.backend.supports(item.stored.cut.program, device="cpu:0").needs_torch
    if "torch" in result["modules"] and not needs_torch:
        strange.append("torch, which its Capability says it does not need,")
    if strange:
        return f"the process that runs it has loaded {strange[0]}"
    return _wrong(world, item, folder.name)


def _wrong(world: World, item: Prepared, name: str) -> str:
    found, truth = load_values(world.scratch / f"{name}.npz"), load_values(Path(item.subject.trials[0].values))
    faults = [fault_of(found[key], truth[key])[1] for key in truth if key.startswith("out ")]
    return next((fault for fault in faults if fault), "")


def _said(result: Mapping[str, Any] | None, code: str, text: str) -> str:
    """Whether loading failed as it should."""
    if result is None:
        return NOT_REACHED
    if "error" not in result:
        return f"it was loaded, or ended the process: {job_result(result) or 'no error'}"
    error = result["error"]
    if error["code"] != code or text not in error["message"]:
        return f"the error is {error['code']}: {error['message'][:160]}, expected {code} with {text!r}"
    return ""


def _case(name: str, fault: str) -> Case:
    outcome = "skipped" if fault == NOT_REACHED else "failed" if fault else "passed"
    return Case(name, outcome, reason=fault)


def try_cache(world: World, prepared: Mapping[str, Prepared], *, progress: Progress) -> list[Case]:
    """Programs that a careless cache takes for one, all in one cache: told apart by their keys, and right."""
    cases = []
    for number, pair in enumerate(PAIRS):
        progress(f"programs that look alike: {number} of {len(PAIRS)}")
        names = {(side, rows): side_name(pair, side, rows) for side in (0, 1) for rows in ROWS}
        items = {key: prepared[name] for key, name in names.items() if name in prepared}
        broken = next((item for item in items.values() if not item.usable), None)
        if broken is not None:
            cases.append(broken.case(pair))
            continue
        # Ports are bound by position, so equal code with its inputs the other way round is told apart by its wiring.
        known = {(item.whole, item.piece().inputs) for item in items.values()}
        fault = "" if len(known) == len(items) else f"{len(items)} programs have {len(known)} keys"
        cases.append(_case(pair, fault or _all_right(world, items)))
    return cases


def _all_right(world: World, items: Mapping[tuple[int, int], Prepared]) -> str:
    jobs = {}
    for (side, rows), item in items.items():
        piece, trial = piece_of(item.stored.cut, 0, len(item.stored.cut.blocks)), item.subject.trials[0]
        name = f"side-{side}-{rows}"
        job = Execution(
            name=name, directory=str(world.cache.artifact(item.whole)), backend=world.backend.name,
            weights=piece_weights(item.weights, piece), inputs=piece.inputs, outputs=piece.outputs,
            runs=(Run(values=trial.values, results=str(world.scratch / f"{name}.npz")),),
        )  # fmt: skip
        jobs[name] = (msgspec.to_builtins(job), item)
    found = world.jobs(EXECUTING, [job for job, _ in jobs.values()])
    for name, (_, item) in jobs.items():
        if fault := job_result(found.get(name)) or _wrong(world, item, name):
            return fault if fault == NOT_REACHED else f"{item.subject.name}: {fault}"
    return ""
