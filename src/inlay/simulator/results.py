"""What a simulation found: figures of all requests, what devices did, and how sure that is. As data that can be written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from inlay.cost import weakest
from inlay.simulator.records import Record, Recorder
from inlay.simulator.simulation import Simulation
from inlay.specs.slo import within


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; `mean` is None where only classes were counted."""

    mean: float | None
    p50: float
    p90: float
    p95: float
    p99: float


class DeviceUse(msgspec.Struct, frozen=True, kw_only=True):
    """One device over the whole run: seconds at work by phase, seconds idle, and the share at work."""

    device: str
    busy: dict[str, float]
    idle: float
    utilisation: float


class RequestFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One request, in virtual seconds: when it came, its figures, and where it ran. `reason` is "length", or why it failed."""

    number: int
    arrived: float
    ended: float
    ttft: float | None
    tpot: float | None
    prompt: int
    cached: int
    tokens: int
    prefill: str
    decode: str
    reason: str


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one run. `seconds` are virtual: from the first request to the end of the last one. Rates are over them;
    `goodput` is requests a second within the budgets, None without any. `prefix_hit_rate` is the share of prompt tokens that
    kept prefixes stood in for. `grade` is the weakest of the tables' and links'."""

    requests: int
    completed: int
    failed: dict[str, int]
    seconds: float
    request_rate: float
    output_rate: float
    prompt_tokens: int
    output_tokens: int
    prefix_hit_rate: float
    ttft: Quantiles | None
    tpot: Quantiles | None
    itl: Quantiles | None
    e2e: Quantiles | None
    goodput: float | None
    goodput_share: float | None
    preempted: int
    recomputed: int
    devices: tuple[DeviceUse, ...]
    transferred: float
    clipped: int
    budgets: dict[str, float]
    grade: str
    each: tuple[RequestFigures, ...] = ()


def result_of(
    simulation: Simulation, *, budgets: Mapping[str, float] = {}, clipped: int = 0, with_each: bool = False
) -> SimulationResult:
    """The figures of a run that has ended."""
    recorder = simulation.recorder
    records = list(recorder.records.values())
    good = [item for item in records if item.is_good]
    begin = min((item.arrived for item in records), default=0.0)
    seconds = max((item.ended for item in records), default=0.0) - begin
    output, prompt = sum(item.tokens for item in good), sum(item.prompt for item in good)
    kept = sum(within(budgets, ttft=item.ttft, tpot=item.tpot, e2e=item.e2e) for item in good)
    grades = [runner.table.grade for runner in simulation.runners.values()]
    grades += [link.grade for link in simulation.setup.links] if simulation.handoffs.carried else []
    return SimulationResult(
        requests=len(records),
        completed=len(good),
        failed=dict(Counter(item.reason for item in records if not item.is_good)),
        seconds=seconds,
        request_rate=_rate(len(good), seconds),
        output_rate=_rate(output, seconds),
        prompt_tokens=prompt,
        output_tokens=output,
        prefix_hit_rate=_rate(sum(item.cached for item in good), prompt),
        ttft=quantiles([item.ttft for item in good]),
        tpot=quantiles([item.tpot for item in good if item.tpot is not None]),
        itl=_gaps(recorder),
        e2e=quantiles([item.e2e for item in good]),
        goodput=_rate(kept, seconds) if budgets else None,
        goodput_share=_rate(kept, len(records)) if budgets else None,
        preempted=recorder.preempted,
        recomputed=recorder.recomputed,
        devices=tuple(_devices(simulation, seconds)),
        transferred=simulation.handoffs.carried,
        clipped=clipped,
        budgets=dict(budgets),
        grade=weakest(grades),
        each=tuple(map(_figures, records)) if with_each else (),
    )


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """None of no values."""
    if not values:
        return None
    p50, p90, p95, p99 = (float(item) for item in np.percentile(values, (50, 90, 95, 99)))
    return Quantiles(mean=sum(values) / len(values), p50=p50, p90=p90, p95=p95, p99=p99)


def _gaps(recorder: Recorder) -> Quantiles | None:
    found = [recorder.gaps.quantile(share) for share in (0.5, 0.9, 0.95, 0.99)]
    p50, p90, p95, p99 = (0.0 if item is None else item for item in found)
    return None if found[0] is None else Quantiles(mean=None, p50=p50, p90=p90, p95=p95, p99=p99)


def _devices(simulation: Simulation, seconds: float) -> Iterable[DeviceUse]:
    for name in simulation.chips:
        busy: dict[str, float] = {}
        for runner in simulation.runners.values():
            if runner.chip.name == name:
                for phase, value in runner.busy.items():
                    busy[phase] = busy.get(phase, 0.0) + value
        total = sum(busy.values())
        yield DeviceUse(device=name, busy=busy, idle=max(0.0, seconds - total), utilisation=_rate(total, seconds))


def _figures(record: Record) -> RequestFigures:
    return RequestFigures(
        number=record.number,
        arrived=record.arrived,
        ended=record.ended,
        ttft=record.ttft if record.tokens else None,
        tpot=record.tpot,
        prompt=record.prompt,
        cached=record.cached,
        tokens=record.tokens,
        prefill=record.prefill,
        decode=record.decode,
        reason=record.reason,
    )


def _rate(count: float, per: float) -> float:
    return count / per if per > 0 else 0.0
