"""Captured programs and their lowered pieces, from the side of those who want them: keys, and the processes that make them.

No torch here. A piece that cannot be had is a reason, never a crash of ours: its process may die or run out of time.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends import Backend, backend
from inlay.backends.environment import python_of
from inlay.backends.targets import check_target
from inlay.errors import ArtifactError, InlayError, InputError, UnsupportedError, error_class
from inlay.graph import Piece, Program, piece_of
from inlay.runtime.cache import Cache, digest_of, read_manifest, source_digest, tool_versions
from inlay.runtime.store import StoredProgram, read_program
from inlay.specs.artifact import LowerRequest
from inlay.workers import WorkerSpec, start

PIECE_SOURCES = (
    "graph/capture.py", "graph/extract.py", "graph/blocks.py", "graph/attention.py", "backends/manifest.py",
    "backends/ports.py", "specs/artifact.py",
)  # fmt: skip
POLL_SECONDS = 0.05
LOWER_SECONDS = 900.0
CAPTURE_SECONDS = 900.0
Progress = Callable[[str], None]


class CaptureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of `compile.capture_main`: a builder as FILE.py:FUNCTION, and the files to report to."""

    source: str
    cache: str
    result: str
    progress: str = ""


class LowerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of `compile.lower_main`: pieces (first and end block) of a captured program, for one backend."""

    program: str
    pieces: tuple[tuple[int, int], ...]
    backend: str
    request: LowerRequest
    cache: str
    result: str
    progress: str = ""


class PieceOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one piece: its key in the cache, seconds spent, and the reason where there is no artifact."""

    first: int
    end: int
    key: str
    seconds: float = 0.0
    reason: str = ""


def piece_key(piece: Piece, *, backend: Backend, request: LowerRequest) -> str:
    """The key of a piece's artifact: sha256 over everything that its code depends on."""
    return digest_of(piece_key_contents(piece, backend=backend, request=request))


def piece_key_contents(piece: Piece, *, backend: Backend, request: LowerRequest) -> dict[str, Any]:
    """What `piece_key` hashes, as plain data: structure and ports (in the digest), request, versions, sources, platform."""
    asked = json.loads(msgspec.json.encode(request))
    if not getattr(backend, "bakes_threads", False):
        del asked["threads"]
    extra = (backend.available().framework, *getattr(backend, "lowered_with", ()))
    return {
        "piece": piece.digest,
        "backend": backend.name,
        "request": asked,
        "tools": tool_versions(extra, environment=getattr(backend, "environment", "")),
        "sources": source_digest(backend.name, type(backend).__module__, sources=PIECE_SOURCES),
        "platform": [platform.system(), platform.machine()],
        "machine": getattr(backend, "machine", dict)(),
    }


def check_piece(found: Backend, program: Program, piece: Piece, *, device: str = "cpu:0", target: str = "") -> None:
    """Raise UnsupportedError, naming node, source and reason, for a piece that this backend does not take."""
    check_target(found, target)
    here = found.available()
    if not here.available:
        raise UnsupportedError(
            f"backend {found.name} cannot lower here: {here.reason}", hint=here.hint or "`inlay devices` shows them"
        )
    nodes = {node.name: node for node in program.nodes}
    refused = {item.node: item.reason for item in found.supports(program, device=device).nodes if not item.supported}
    for name in piece.nodes:
        if name in refused:
            node = nodes[name]
            where = f" ({node.path or 'top level'}, {node.source})" if node.source else ""
            raise UnsupportedError(
                f"backend {found.name} does not take node {name!r} = {node.operator}{where}: {refused[name]}"
            )


def capture_program(source: str, *, cache: Cache, progress: Progress = lambda text: None) -> Path:
    """Have a process capture what `FILE.py:FUNCTION` builds; the folder of the captured program. Raises what it raised."""
    file = source.rpartition(":")[0]
    if not Path(file).is_file():
        raise InputError(
            f"model is {source!r}, expected FILE.py:FUNCTION with a file that exists", hint="see examples/encoder.py"
        )
    config = {"source": str(Path(file).resolve()) + ":" + source.rpartition(":")[2], "cache": str(cache.root)}
    outcome = run_program("inlay.runtime.compile:capture_main", config, progress=progress, seconds=CAPTURE_SECONDS)
    return Path(outcome["folder"])


def find_piece(piece: Piece, *, backend: Backend, request: LowerRequest, cache: Cache) -> Path | None:
    """The artifact of a piece with all its files checked, or None. A damaged one is told as ArtifactError."""
    directory = cache.artifact(piece_key(piece, backend=backend, request=request))
    if not directory.is_dir():
        return None
    read_manifest(directory)
    return directory


def lower_pieces(
    folder: Path,
    pieces: Sequence[tuple[int, int]],
    *,
    backend_name: str,
    request: LowerRequest,
    cache: Cache,
    progress: Progress = lambda text: None,
    seconds: float = LOWER_SECONDS,
) -> dict[tuple[int, int], PieceOutcome]:
    """Lower what the cache lacks, in processes of this backend's environment. Every piece has an outcome.

    A process that dies or takes too long costs the piece it was at; those after it are tried in a new one.
    """
    stored, found = read_program(folder), backend(backend_name)
    outcomes: dict[tuple[int, int], PieceOutcome] = {}
    missing: list[tuple[int, int]] = []
    known: dict[str, tuple[int, int]] = {}
    for first, end in dict.fromkeys(pieces):
        piece = piece_of(stored.cut, first, end)
        key = piece_key(piece, backend=found, request=request)
        if not _usable(piece, found, request, cache, progress) and key not in known:
            missing.append((first, end))
        known.setdefault(key, (first, end))
        outcomes[first, end] = PieceOutcome(first=first, end=end, key=key)
    while missing:
        done = _lower_once(folder, missing, stored, backend_name, request, cache, progress, seconds)
        missing = [item for item in missing if item not in done]
        for outcome in done.values():
            for item, held in outcomes.items():
                if held.key == outcome.key:
                    outcomes[item] = msgspec.structs.replace(outcome, first=item[0], end=item[1])
    return outcomes


def _lower_once(
    folder: Path, pieces: Sequence[tuple[int, int]], stored: StoredProgram, name: str, request: LowerRequest, cache: Cache,
    progress: Progress, seconds: float,
) -> dict[tuple[int, int], PieceOutcome]:  # fmt: skip
    """One process over these pieces; at least the first of them has an outcome afterwards."""
    config = {
        "program": str(folder),
        "pieces": list(pieces),
        "backend": name,
        "request": msgspec.to_builtins(request),
        "cache": str(cache.root),
    }
    try:
        outcome = run_program(
            "inlay.runtime.compile:lower_main", config, progress=progress, seconds=seconds, python=python_of(name)
        )
        found = msgspec.convert(outcome["pieces"], list[PieceOutcome])
        return {(item.first, item.end): item for item in found}
    except InlayError as error:
        outcomes = {}
        for first, end in pieces:
            piece = piece_of(stored.cut, first, end)
            key = piece_key(piece, backend=backend(name), request=request)
            there = cache.artifact(key).is_dir()
            outcomes[first, end] = PieceOutcome(first=first, end=end, key=key, reason="" if there else error.message)
            if not there:  # the piece it was at; those after it are tried again
                break
        return outcomes


def _usable(piece: Piece, found: Backend, request: LowerRequest, cache: Cache, progress: Progress) -> bool:
    try:
        return find_piece(piece, backend=found, request=request, cache=cache) is not None
    except ArtifactError as error:
        import shutil

        progress(f"{error.message}: lowering it again")
        shutil.rmtree(cache.artifact(piece_key(piece, backend=found, request=request)), ignore_errors=True)
        return False


def run_program(
    program: str, config: Mapping[str, Any], *, progress: Progress, seconds: float, python: str = sys.executable
) -> dict[str, Any]:
    """Start a compile process, pass its steps on, and return its outcome. Raises its error, or that it died or was late."""
    with tempfile.TemporaryDirectory(prefix="inlay-compile-") as directory:
        result, steps = Path(directory) / "result.json", Path(directory) / "progress.jsonl"
        spec = WorkerSpec(
            name=program.rpartition(".")[2].replace(":", "-"),
            program=program,
            run_directory=directory,
            config={**config, "result": str(result), "progress": str(steps)},
            python=python,
            threads=max(1, len(os.sched_getaffinity(0))),
        )
        worker, begun, shown = start(spec), time.monotonic(), 0
        try:
            while worker.alive():
                shown = _pass_on(steps, shown, progress)
                if time.monotonic() - begun > seconds:
                    raise UnsupportedError(f"compile process {spec.name} took over {seconds:.0f} s at {_at(steps)}")
                time.sleep(POLL_SECONDS)
            _pass_on(steps, shown, progress)
            if not result.exists():
                raise UnsupportedError(f"compile process {spec.name} died at {_at(steps)}: {worker.lost().message}")
        finally:
            worker.stop()
        outcome: dict[str, Any] = json.loads(result.read_text())
    if "error" in outcome:
        error = outcome["error"]
        raise error_class(error["code"])(error["message"], hint=error["hint"])
    return outcome


def _pass_on(steps: Path, shown: int, progress: Progress) -> int:
    lines = steps.read_text().splitlines() if steps.exists() else []
    for line in lines[shown:]:
        step = json.loads(line)
        if step["state"] == "begun":
            progress(step["step"])
    return len(lines)


def _at(steps: Path) -> str:
    lines = steps.read_text().splitlines() if steps.exists() else []
    return json.loads(lines[-1])["step"] if lines else "its start"
