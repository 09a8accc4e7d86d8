"""Carry out what a search wants measured: lower what the cache lacks, then time it. What cannot be had is a Failure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from inlay.backends import backend
from inlay.graph import piece_of
from inlay.hardware import Cluster
from inlay.runtime.cache import Cache
from inlay.runtime.candidate import MeasureJob, Wire
from inlay.runtime.candidate import Piece as TimedPiece
from inlay.runtime.lowering import PieceOutcome, lower_pieces
from inlay.runtime.measure import ROUNDS, measure
from inlay.runtime.store import StoredProgram, piece_weights, read_program, read_weights
from inlay.runtime.weights import MAP_FILE
from inlay.specs.artifact import LowerRequest, WeightMap
from inlay.specs.precision import Precision
from inlay.specs.profile import Failure, Measurement, Profile, Wanted

Progress = Callable[[str], None]
Run = tuple[int, int]
Code = tuple[str, str]
"""A backend and a target."""


def request_for(
    stored: StoredProgram, backend_name: str, *, precision: Precision, threads: int, target: str = ""
) -> LowerRequest:
    """What a backend is asked for, to run this program: its points where it runs declared sizes only, else its ranges.

    For a target the sizes are always declared: what compilers of accelerators do best.
    """
    points = () if backend(backend_name).dynamic and not target else stored.points
    ranges = stored.cut.program.ranges
    return LowerRequest(precision=precision, points=points, ranges=ranges, threads=threads, target=target)


def obtain(
    wanted: Wanted,
    folder: Path,
    *,
    cache: Cache,
    cluster: Cluster,
    options: Mapping[str, Mapping[str, str]] | None = None,
    progress: Progress = lambda text: None,
    rounds: int = ROUNDS,
    seconds: float = 60.0,
) -> tuple[list[Profile], list[Failure]]:
    """Profiles and failures for every key wanted. `options` are those of an executable, by device."""
    stored, weights = read_program(folder), read_weights(folder)
    profiles: list[Profile] = []
    failures: list[Failure] = []
    lowered = _lower_all(wanted.measurements, stored, folder, cache, cluster, progress)
    by_device: dict[str, list[Measurement]] = {}
    for item in wanted.measurements:
        code = (item.backend, cluster.device(item.device).target)
        reasons = [lowered[code, run].reason for run in _runs(item) if lowered[code, run].reason]
        if reasons:
            failures += [Failure(key=key, reason=reasons[0]) for key in item.keys]
        else:
            by_device.setdefault(item.device, []).append(item)
    total, done = sum(len(item.keys) for items in by_device.values() for item in items), 0
    with tempfile.TemporaryDirectory(prefix="inlay-pieces-") as directory:
        for device, items in by_device.items():
            target = cluster.device(device).target
            jobs = [_job(item, stored, weights, lowered, cache, Path(directory), options or {}, target) for item in items]

            def tell(key: object, state: str) -> None:
                nonlocal done
                if state in ("done", "failed"):
                    done += 1
                progress(f"measure {wanted.stage}: {done} of {total}")

            some, others = measure(jobs, device=device, cluster=cluster, progress=tell, rounds=rounds, seconds=seconds)
            profiles += some
            failures += others
    return profiles, failures


def _runs(item: Measurement) -> list[Run]:
    """The pieces that a measurement loads: one, or one for each block."""
    return [(item.first, item.end)] if item.fused else [(at, at + 1) for at in range(item.first, item.end)]


def _lower_all(
    items: Sequence[Measurement], stored: StoredProgram, folder: Path, cache: Cache, cluster: Cluster, progress: Progress
) -> dict[tuple[Code, Run], PieceOutcome]:
    """Backends side by side, as many as there are cores: each compiles in a process of its own."""
    lowered: dict[tuple[Code, Run], PieceOutcome] = {}
    groups: dict[tuple[str, bytes], tuple[LowerRequest, list[Run]]] = {}
    for item in items:
        key, target = item.keys[0], cluster.device(item.device).target
        request = request_for(stored, item.backend, precision=key.precision, threads=key.threads, target=target)
        groups.setdefault((item.backend, msgspec.json.encode(request)), (request, []))[1].extend(_runs(item))
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        waiting = [
            (
                (name, request.target),
                pool.submit(lower_pieces, folder, runs, backend_name=name, request=request, cache=cache, progress=progress),
            )
            for (name, _), (request, runs) in groups.items()
        ]
        for code, outcomes in waiting:
            lowered |= {(code, run): outcome for run, outcome in outcomes.result().items()}
    return lowered


def _job(
    item: Measurement,
    stored: StoredProgram,
    weights: WeightMap,
    lowered: Mapping[tuple[Code, Run], PieceOutcome],
    cache: Cache,
    directory: Path,
    options: Mapping[str, Mapping[str, str]],
    target: str,
) -> MeasureJob:
    pieces: list[TimedPiece] = []
    made: dict[str, tuple[int, int]] = {}
    for number, run in enumerate(_runs(item)):
        piece = piece_of(stored.cut, *run)
        home = directory / f"{run[0]}-{run[1]}"
        home.mkdir(exist_ok=True)
        (home / MAP_FILE).write_bytes(msgspec.json.encode(piece_weights(weights, piece)))
        wires = tuple(
            Wire(input=port, piece=made[name][0], output=made[name][1])
            for port, name in enumerate(piece.inputs)
            if name in made
        )
        bounds = {
            name: max(1, int(stored.samples[name].high) + 1)
            for name in piece.inputs
            if name in stored.samples and stored.cut.program.inputs[name].dtype.startswith(("int", "uint"))
        }
        made |= {name: (number, port) for port, name in enumerate(piece.outputs)}
        outcome = lowered[(item.backend, target), run]
        pieces.append(TimedPiece(directory=str(cache.artifact(outcome.key)), weights=str(home), wires=wires, bounds=bounds))
    return MeasureJob(keys=item.keys, pieces=tuple(pieces), options=dict(options.get(item.device, {})))
