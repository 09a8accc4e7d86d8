"""A chart of a report as a drawing: colours that stay with a name from chart to chart, measured points with another mark."""

from __future__ import annotations

from inlay.drawing import Curve, Point, plot
from inlay.planner.report.document import Chart, Report, Trace, Vertex

STYLES = {"frontier": "wide", "baseline": "line", "forced": "dashed", "measured": "marks"}


def curves(chart: Chart, names: list[str]) -> list[Curve]:
    """The curves of a chart; `names` are all traces of a report, whose places are their colours."""
    return [
        Curve(
            name=_named(trace),
            points=tuple(_point(trace, vertex) for vertex in trace.vertices),
            style=STYLES[trace.kind],
            paint=names.index(trace.name),
        )
        for trace in chart.traces
        if trace.vertices
    ]


def trace_names(report: Report) -> list[str]:
    """Every trace once, in the order of first appearance."""
    return list(dict.fromkeys(trace.name for chart in report.charts for trace in chart.traces))


def drawn(chart: Chart, names: list[str], *, is_alone: bool = False) -> str:
    """The SVG of a chart."""
    return plot(curves(chart, names), across=chart.across, up=chart.up, is_alone=is_alone, is_logarithmic=True)


def _named(trace: Trace) -> str:
    grades = sorted({vertex.grade for vertex in trace.vertices})
    return f"{trace.name} ({', '.join(grades)})"


def _point(trace: Trace, vertex: Vertex) -> Point:
    band = "" if vertex.low is None or vertex.high is None else f" ({vertex.low:,.4g} to {vertex.high:,.4g})"
    told = f"{trace.name}: {vertex.y:,.4g}{band} at {vertex.x:.0f} tokens/s per user, {vertex.grade}\n{vertex.configuration}"
    return Point(vertex.x, vertex.y, "", told, vertex.low, vertex.high)
