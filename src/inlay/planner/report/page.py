"""A report as one web page: no script, no outside file. What a vertex is shows when it is pointed at, and stands in a table."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from inlay.drawing import curve_key
from inlay.planner.report.chart import curves, drawn, trace_names
from inlay.planner.report.document import Chart, Report, Table

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --ground: #ffffff; --raised: #f4f6f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #333d4a; --ground: #12161c; --raised: #1a2029; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .4rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p, li { overflow-wrap: anywhere; } p { margin: .3rem 0; } .soft { color: var(--soft); }
.lead { background: var(--raised); border-left: 4px solid #0b6bcb; padding: .7rem 1rem; margin: .8rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } ul { padding-left: 1.2rem; margin: .3rem 0; }
svg { width: 100%; height: auto; margin: .6rem 0 0; }
svg text { fill: var(--soft); font: 13px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.words, th.words { text-align: left; }
ul.key { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
ul.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; margin-right: .45rem; }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--soft); }
"""
GRADES = (
    "Grades: measured, taken on that hardware; calibrated, from a model fitted to measurements of that chip, engine and model; "
    "modelled, from data sheets or from other chips' measurements; vendor, a maker's word. Bands are the error of prediction: "
    "80 % of configurations that the model had not seen lay within. They hold for throughput at equal interactivity."
)


def page(report: Report) -> str:
    """The page."""
    names = trace_names(report)
    asked = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.asked)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{escape(report.title)}</h1><dl>{asked}</dl>",
        f'<div class="lead">{"".join(f"<p>{escape(line)}</p>" for line in report.lead)}</div>',
        *_listed("Why", report.reasons),
        *_listed("What it hinges on", report.hinges),
        *(_chart(chart, names) for chart in report.charts),
        *(_table(table) for table in report.tables),
        *_listed("Assumed values in this answer", report.doubts),
        *_listed("Sources", report.sources),
        f'<h2>How to read it</h2><p class="soft">{GRADES}</p></body></html>\n',
    ]
    return "\n".join(parts)


def _listed(title: str, lines: Iterable[str]) -> list[str]:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return [f"<h2>{title}</h2><ul>{items}</ul>"] if items else []


def _chart(chart: Chart, names: list[str]) -> str:
    note = f'<p class="soft">{escape(chart.note)}</p>' if chart.note else ""
    shown = curves(chart, names)
    if not shown:
        return f"<h2>{escape(chart.name)}</h2>{note}"
    rows = "".join(
        f"<tr><td>{escape(trace.name)}</td><td>{vertex.x:.1f}</td><td>{vertex.y:,.4g}</td>"
        f"<td>{_band(vertex.low, vertex.high)}</td><td>{vertex.grade}</td>"
        f'<td class="words">{escape(vertex.configuration)}</td></tr>'
        for trace in chart.traces
        for vertex in trace.vertices
    )
    head = "<tr><th>curve</th><th>tokens/s/user</th><th>y</th><th>band</th><th>grade</th>"
    return (
        f"<h2>{escape(chart.name)}</h2>{note}{drawn(chart, names)}{curve_key(shown)}"
        f'<details><summary>every vertex</summary><div class="scroll"><table>{head}<th class="words">configuration</th></tr>'
        f"{rows}</table></div></details>"
    )


def _band(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:,.4g} to {high:,.4g}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    note = f'<p class="soft">{escape(table.note)}</p>' if table.note else ""
    return f'<h2>{escape(table.title)}</h2>{note}<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
