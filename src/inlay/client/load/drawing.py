"""Results as one web page without scripts or outside files: throughput against interactivity, a curve a result, tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from inlay.client.load.records import BenchResult, Level, Spread

WIDTH, HEIGHT = 920, 500
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 18, 58
COLOURS = ("#0b6bcb", "#d1495b", "#2a9d6f", "#8a5cd1", "#b7791f", "#0e8f9e", "#c2478f", "#5f6b7a")
STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --ground: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #333d4a; --ground: #12161c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 980px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
p { margin: .3rem 0; color: var(--soft); } svg { width: 100%; height: auto; margin: 1rem 0 0; }
svg text { fill: var(--soft); font: 13px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--soft); } svg .name { fill: var(--ink); font-weight: 600; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: .25rem .65rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
ul.key { list-style: none; padding: 0; margin: .2rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
ul.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; margin-right: .45rem; }
"""
DEFINITIONS = (
    "TTFT: from sending, connecting included, to the first piece of the answer with generated tokens. TPOT: (time of the last "
    "piece - time of the first) / (output tokens - 1). ITL: gaps between pieces; one piece may hold several tokens. "
    "Interactivity: 1 / median TPOT. Rates: over the time from the first sending to the end of the last answer. Tokens: the "
    "server's own count."
)
HEAD = (
    "load",
    "requests",
    "errors",
    "requests/s",
    "output tokens/s",
    "tokens/s per user",
    "TTFT p50 / p95 ms",
    "TPOT p50 / p95 ms",
    "ITL p50 / p99 ms",
    "E2E p50 s",
    "goodput/s",
    "acceptance",
    "prefix hits",
)


@dataclass(frozen=True, slots=True)
class Point:
    """One level that has both figures."""

    x: float
    y: float
    level: Level


def page(results: Sequence[BenchResult]) -> str:
    """The page. Results without a level that has a TPOT are in the tables only."""
    names = unique([result.label for result in results])
    curves = [curve(result) for result in results]
    models = ", ".join(sorted({result.model for result in results}))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>inlay bench: {escape(models)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>Throughput against interactivity: {escape(models)}</h1>",
        "<p>All figures are measured, by <code>inlay bench</code>. Up and to the right is better.</p>",
        plot(names, curves),
        '<ul class="key">',
        *(f'<li><i style="background:{colour(i)}"></i>{escape(name)}</li>' for i, name in enumerate(names)),
        "</ul>",
        *(section(name, result) for name, result in zip(names, results, strict=True)),
        f"<h2>Definitions</h2><p>{DEFINITIONS}</p></body></html>\n",
    ]
    return "\n".join(parts)


def curve(result: BenchResult) -> list[Point]:
    """The levels with both figures, in the order of their load."""
    levels = sorted(result.levels, key=lambda level: (level.load.kind, level.load.value))
    return [Point(item.summary.interactivity, item.summary.output_rate, item) for item in levels if item.summary.interactivity]


def plot(names: Sequence[str], curves: Sequence[Sequence[Point]]) -> str:
    """The SVG: output tokens a second over tokens a second of one user."""
    points = [point for each in curves for point in each]
    across, up = ticks(max((point.x for point in points), default=1.0)), ticks(max((point.y for point in points), default=1.0))

    def x_of(value: float) -> float:
        return LEFT + value / across[-1] * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - value / up[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="output tokens a second over tokens a second a user">']
    for value in up:
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in across:
        x = x_of(value)
        parts.append(f'<line class="grid" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{x:.1f}" x2="{x:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">interactivity: tokens/s per user</text>')
    parts.append(
        f'<text transform="translate(20 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">output tokens/s, all users</text>'
    )
    for index, (name, each) in enumerate(zip(names, curves, strict=True)):
        line = " ".join(f"{x_of(point.x):.1f},{y_of(point.y):.1f}" for point in each)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour(index)}" stroke-width="2"/>')
        for point in each:
            x, y = x_of(point.x), y_of(point.y)
            told = f"{name}, {point.level.load}: {point.y:.1f} tokens/s, {point.x:.1f} tokens/s per user"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour(index)}"><title>{escape(told)}</title></circle>'
            )
            parts.append(f'<text x="{x + 8:.1f}" y="{y - 7:.1f}">{point.level.load.value:g}</text>')
    return "".join([*parts, "</svg>"])


def section(name: str, result: BenchResult) -> str:
    """One result: what it was, its table, its notes."""
    facts = result.facts
    told = [f"{result.model} at {result.url}", *(str(facts[key]) for key in ("date", "hardware") if facts.get(key))]
    rows = "".join(row(level) for level in result.levels)
    head = "".join(f"<th>{escape(text)}</th>" for text in HEAD)
    notes = "".join(f"<p>{escape(str(note))}</p>" for note in facts.get("notes", ()))
    command = f"<p><code>{escape(str(facts['command']))}</code></p>" if facts.get("command") else ""
    if result.interrupted:
        notes = f"<p>This run was interrupted: its last level is partial.</p>{notes}"
    return (
        f"<h2>{escape(name)}</h2><p>{escape('; '.join(told))}</p>{command}"
        f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>{notes}'
    )


def row(level: Level) -> str:
    """One line of the table."""
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(level)) + "</tr>"


def cells(level: Level) -> tuple[str, ...]:
    """The figures of a level as texts, in the order of HEAD."""
    found, server = level.summary, level.server
    return (
        str(level.load) + (" (partial)" if level.interrupted else ""),
        str(found.completed),
        str(sum(found.errors.values())),
        f"{found.request_rate:.2f}",
        f"{found.output_rate:.1f}",
        "-" if found.interactivity is None else f"{found.interactivity:.1f}",
        milliseconds(found.ttft, "p50", "p95"),
        milliseconds(found.tpot, "p50", "p95"),
        milliseconds(found.itl, "p50", "p99"),
        "-" if found.e2e is None else f"{found.e2e.p50:.2f}",
        "-" if found.goodput is None else f"{found.goodput:.2f} ({found.goodput_share or 0.0:.0%})",
        "-" if server.acceptance is None else f"{server.acceptance:.2f}",
        "-" if server.prefix_hits is None else f"{server.prefix_hits:.0%}",
    )


def milliseconds(found: Spread | None, *names: str) -> str:
    """`12.3 / 45.6`."""
    return "-" if found is None else " / ".join(f"{1e3 * getattr(found, name):.1f}" for name in names)


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that come again."""
    found: list[str] = []
    for name in names:
        count, given = 1, name
        while given in found:
            count += 1
            given = f"{name} ({count})"
        found.append(given)
    return found


def ticks(highest: float) -> list[float]:
    """About six round numbers from 0 to at least `highest`."""
    if not highest > 0:
        return [0.0, 1.0]
    rough = highest / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(step * index, 10) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def colour(index: int) -> str:
    """The colour of a series."""
    return COLOURS[index % len(COLOURS)]
