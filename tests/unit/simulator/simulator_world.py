"""Small setups whose times can be reckoned by hand, and what a run of one gives."""

from __future__ import annotations

from typing import Any

from inlay.simulator import LinkSetup, Planned, Simulation, SimulationSetup, make_source
from inlay.simulator.records import Record
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.speculation import SpeculationSetup
from inlay.specs.workload import parse_workload

OVERHEAD = 0.002
TABLE = LatencyTable(
    fixed=0.01, per_row=0.001, per_token=0.0005, per_past=1e-6, spread=0.0, overhead=OVERHEAD, grade="modelled"
)


def facts(runner: str = "one", **changes: Any) -> RunnerFacts:
    given: dict[str, Any] = {
        "runner": runner,
        "epoch": 1,
        "roles": ("prefill", "decode"),
        "capacities": (64, 256, 1024),
        "slots": 16,
        "chunk": 32,
        "device": f"{runner}:0",
        "kv_bytes": 1000,
        "table": TABLE,
    }
    return RunnerFacts(**{**given, **changes})


def setup(*runners: RunnerFacts, speculation: SpeculationSetup = SpeculationSetup(), **changes: Any) -> SimulationSetup:
    scheduler = SchedulerSetup(facts=runners or (facts(),), context=1024, waiting_limit=100_000, speculation=speculation)
    return SimulationSetup(scheduler=scheduler, **changes)


def link(source: str, destination: str, *, name: str = "", latency: float = 0.003, bandwidth: float = 1e6) -> LinkSetup:
    return LinkSetup(
        source=source,
        destination=destination,
        name=name or f"{source}-{destination}",
        latency=latency,
        bandwidth=bandwidth,
        grade="vendor",
    )


class Listed:
    """Requests at times of their own: (at, prompt tokens, output tokens)."""

    def __init__(self, *items: tuple[float, int, int], prompt: tuple[int, ...] | None = None) -> None:
        self._items = iter(items)
        self._prompt = prompt
        self._made = 0

    def next_timed(self) -> Planned | None:
        found = next(self._items, None)
        if found is None:
            return None
        self._made += 1
        prompt = self._prompt or (self._made, *(0,) * (found[1] - 1))
        return Planned(at=found[0], prompt=prompt, max_tokens=found[2])

    def ended(self, record: Record) -> Planned | None:
        return None


def run(given: SimulationSetup, source: Any, **options: Any) -> Simulation:
    """A source, or the text of a workload."""
    if isinstance(source, str):
        source = make_source(parse_workload(source), context=given.scheduler.context)
    simulation = Simulation(given, source, keeps_times=True, **options)
    simulation.run()
    return simulation


def times(simulation: Simulation) -> dict[int, list[float] | None]:
    return {number: record.times for number, record in simulation.recorder.records.items()}
