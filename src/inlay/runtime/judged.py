"""A Build as a candidate of `runtime.compare`: a process of its own that opens it and runs one pass over all its points.

Either as it is served, a driver with a process for each device, or `inside` the candidate's own process, where what passes
between regions is bound and not sent. Nothing here has a clock.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends import Array
from inlay.errors import InputError
from inlay.hardware import Cluster
from inlay.runtime.build import Build, read_build, read_build_weights
from inlay.runtime.compare import Candidate, answer_turns, told_failure
from inlay.runtime.device import load_regions
from inlay.runtime.inputs import random_inputs
from inlay.runtime.opening import build_processes, initial_values, open_build

Points = list[tuple[dict[str, int], dict[str, Array]]]


class JudgedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of `answer_build`. `turns` is the descriptor that `runtime.compare` adds."""

    folder: str
    cluster: Cluster
    points: tuple[dict[str, int], ...]
    inside: bool = False
    passes: int = 1
    seed: int = 0
    turns: int


def build_candidate(
    name: str,
    folder: Path,
    *,
    cluster: Cluster,
    points: tuple[dict[str, int], ...] = (),
    inside: bool = False,
    passes: int = 1,
    seed: int = 0,
) -> Candidate:
    """A candidate whose turn is `passes` passes over the points (by default those the Build was planned for).

    With `inside` all regions run in its own process, pinned to their one device. Raises ArtifactError for a Build that
    cannot be used, InputError for one that has several processes and is to run inside.
    """
    build = read_build(folder)
    processes = build_processes(build)
    if inside and len(processes) > 1:
        names = [process.name for process in processes]
        raise InputError(f"Build {folder} has processes {names}, expected one to run inside a process", hint="leave `inside`")
    config = JudgedConfig(
        folder=str(folder),
        cluster=cluster,
        points=points or build.stored.points,
        inside=inside,
        passes=passes,
        seed=seed,
        turns=0,
    )
    cores = cluster.device(processes[0].device).cores if inside else ()
    values = {key: value for key, value in msgspec.to_builtins(config).items() if key != "turns"}
    return Candidate(
        name=name,
        program="inlay.runtime.judged:answer_build",
        config=values,
        python=processes[0].python if inside else sys.executable,
        cores=cores,
        threads=max(1, len(cores)),
    )


def answer_build(config: dict[str, Any]) -> int:
    """The program of the candidate: open the Build, then run its passes at each turn until the other end goes."""
    with told_failure(config["turns"]):
        parsed = msgspec.convert(config, JudgedConfig)
        build = read_build(Path(parsed.folder))
        points = _points(build, parsed)
        opened, once = _inside(build, points) if parsed.inside else _outside(build, parsed.cluster, points)

    def run() -> None:
        for _ in range(parsed.passes):
            once()

    with closing(opened):
        answer_turns(parsed.turns, run)
    return 0


def _points(build: Build, config: JudgedConfig) -> Points:
    program, samples = build.stored.cut.program, build.stored.samples
    states = {state.input for state in program.states}
    wanted = {name: tensor for name, tensor in program.inputs.items() if name not in states}
    return [
        (point, random_inputs(wanted, sizes=point, samples=samples, seed=config.seed + number))
        for number, point in enumerate(config.points)
    ]


def _outside(build: Build, cluster: Cluster, points: Points) -> tuple[Any, Callable[[], None]]:
    session = open_build(build, cluster)

    def once() -> None:
        for _, inputs in points:
            session.run(inputs)

    return session, once


def _inside(build: Build, points: Points) -> tuple[Any, Callable[[], None]]:
    [process] = build_processes(build)
    program = build.stored.cut.program
    initial = initial_values(program, read_build_weights(build.folder))
    loaded = load_regions(process.regions, states=program.states, initial=initial)
    stitched, results = loaded.stitched, dict.fromkeys(program.outputs)

    def once() -> None:
        for sizes, inputs in points:
            stitched.arrange(sizes)
            for name, array in inputs.items():
                stitched.write(name, array)
            stitched.run()
            for name in results:
                stitched.read(name)

    return stitched, once
