"""Frontiers as charts: throughput per chip, per kW and per dollar against interactivity, with what was measured on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from inlay.planner.plans import Plan
from inlay.planner.report.document import Chart, Trace, Vertex
from inlay.planner.report.wording import configuration

Kind = Literal["frontier", "baseline", "forced", "measured"]


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """What throughput is divided by, and how its chart is called."""

    name: str
    title: str
    up: str


AXES = (
    Axis(name="chip", title="Throughput per chip", up="output tokens/s per chip"),
    Axis(
        name="target",
        title="Throughput per chip of the model itself, drafters apart not counted",
        up="output tokens/s per target chip",
    ),
    Axis(name="kilowatt", title="Throughput per kW", up="output tokens/s per all-in kW"),
    Axis(name="dollar", title="Throughput per dollar", up="output tokens/s per $ an hour"),
)


class MeasuredVertex(msgspec.Struct, frozen=True, kw_only=True):
    """A published measurement of the model: tokens a second of a user and of a chip, on which chip, how it was run, by whom."""

    chip: str
    interactivity: float
    per_chip: float
    configuration: str
    source: str


def value_on(plan: Plan, axis: str) -> float | None:
    """A plan's throughput on an axis; None where it has no price."""
    values: Mapping[str, Callable[[], float | None]] = {
        "chip": lambda: plan.per_chip,
        "target": lambda: plan.per_target,
        "kilowatt": lambda: plan.per_kilowatt,
        "dollar": lambda: plan.per_dollar,
    }
    return values[axis]()


def trace(name: str, kind: Kind, plans: Sequence[Plan], axis: str) -> Trace:
    """The vertices of some plans on an axis, those without a value left out, from the slowest user to the fastest."""
    found = []
    for plan in sorted(plans, key=lambda item: item.interactivity):
        value = value_on(plan, axis)
        if value is not None:
            found.append(
                Vertex(
                    x=plan.interactivity,
                    y=value,
                    low=value * plan.low,
                    high=value * plan.high,
                    configuration=configuration(plan),
                    grade=plan.grade,
                )
            )
    return Trace(name=name, kind=kind, vertices=tuple(found))


def measured_trace(
    points: Sequence[MeasuredVertex], axis: str, *, kilowatts: Mapping[str, float], dollars: Mapping[str, float | None]
) -> Trace:
    """Published measurements on an axis: tokens a second as measured, over the power or price of the chip."""
    found = []
    for point in points:
        divisor = {"chip": 1.0, "target": 1.0, "kilowatt": kilowatts.get(point.chip), "dollar": dollars.get(point.chip)}[axis]
        if divisor:
            told = f"{point.chip}, {point.configuration}; {point.source}"
            found.append(Vertex(x=point.interactivity, y=point.per_chip / divisor, configuration=told, grade="measured"))
    return Trace(name="published measurements", kind="measured", vertices=tuple(found))


def charts(
    by_axis: Callable[[str], Sequence[tuple[str, Kind, Sequence[Plan]]]],
    *,
    points: Sequence[MeasuredVertex] = (),
    kilowatts: Mapping[str, float] | None = None,
    dollars: Mapping[str, float | None] | None = None,
) -> tuple[Chart, ...]:
    """One chart an axis. `by_axis` gives names, kinds and plans of its curves. Where plans have no price, the chart says so."""
    found = []
    for axis in AXES:
        traces = [trace(name, kind, plans, axis.name) for name, kind, plans in by_axis(axis.name)]
        asked = {chip for _, _, plans in by_axis(axis.name) for plan in plans for chip in plan.unpriced}
        if any(item.vertices for item in traces):
            traces.append(measured_trace(points, axis.name, kilowatts=kilowatts or {}, dollars=dollars or {}))
        note = ""
        if axis.name == "dollar" and asked:
            note = f"Plans with {', '.join(sorted(asked))} are not here: no price is known. See the break-even price."
        found.append(Chart(name=axis.title, up=axis.up, traces=tuple(traces), note=note))
    return tuple(found)
