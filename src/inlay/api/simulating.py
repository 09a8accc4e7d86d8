"""Simulations of deployments and of recorded engines. Wiring only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from inlay.engine.journal import read_start
from inlay.errors import InputError
from inlay.models import read_model
from inlay.simulator import (
    Quantiles,
    Simulation,
    SimulationResult,
    SimulationSetup,
    describe,
    make_source,
    recorded,
    result_of,
)
from inlay.specs.deployment import Deployment
from inlay.specs.latency import LatencyTable
from inlay.specs.slo import parse_budgets
from inlay.specs.workload import Workload, parse_workload

__all__ = [
    "Quantiles",
    "SimulationResult",
    "Workload",
    "parse_budgets",
    "parse_workload",
    "read_table",
    "simulate",
    "simulation_setup",
    "tables_of",
]


def read_table(path: str | Path) -> LatencyTable:
    """A LatencyTable in a JSON file. Raises InputError."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=LatencyTable)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            f"{str(path)!r} is not a latency table: {error}",
            hint=f"a JSON object with {', '.join(LatencyTable.__struct_fields__)}",
        ) from error


def tables_of(deployment: Deployment, folder: Path) -> dict[str, LatencyTable]:
    """The tables that a deployment file in this folder names, by place. Raises InputError where one is another than it was."""
    found = {}
    for place, reference in deployment.tables.items():
        path = folder / reference.path
        table = read_table(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if reference.digest != digest:
            raise InputError(
                f"the latency table of {place} has digest {digest[:12]}, expected {reference.digest[:12]}: it has changed",
                hint="write its digest (sha256) into the deployment if that is meant",
            )
        found[place] = table
    return found


def simulation_setup(
    source: Deployment | str | Path,
    *,
    tables: Mapping[str, LatencyTable] = {},
    acceptance: float | None = None,
    failures: Mapping[str, float] = {},
    seed: int = 0,
) -> SimulationSetup:
    """What is simulated of a deployment with these tables, or of the engine that an event log is of."""
    if acceptance is not None and not 0 <= acceptance <= 1:
        raise InputError(f"the acceptance is {acceptance}, expected a share from 0 to 1", hint="write for example 0.7")
    if not isinstance(source, Deployment):
        return recorded(read_start(Path(source)), acceptance=acceptance, failures=failures, seed=seed)
    spec = read_model(source.model)
    kv_bytes = 2 * 4 * spec.layers * spec.kv_heads * spec.head_dim
    return describe(source, tables, kv_bytes=kv_bytes, acceptance=acceptance, failures=failures, seed=seed)


def simulate(
    setup: SimulationSetup,
    workload: Workload,
    *,
    budgets: Mapping[str, float] = {},
    fast: bool = True,
    with_each: bool = False,
    progress: Callable[[int], None] = lambda ended: None,
) -> SimulationResult:
    """Run the real scheduler over a workload on a virtual clock. `progress` hears how many requests have ended. Raises
    InputError."""
    source = make_source(workload, context=setup.scheduler.context)
    simulation = Simulation(setup, source, fast=fast)
    simulation.run(progress=progress)
    return result_of(simulation, budgets=budgets, clipped=source.fitting.clipped, with_each=with_each)
