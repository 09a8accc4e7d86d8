"""Results as one web page without scripts or outside files: curves, a curve a result, and every level's figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from inlay.client.load.records import BenchResult, Level, Spread
from inlay.drawing import Curve, Point, key, plot

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --ground: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #333d4a; --ground: #12161c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
p { margin: .3rem 0; color: var(--soft); overflow-wrap: anywhere; }
svg { width: 100%; max-width: 940px; height: auto; margin: 1rem 0 0; }
svg text { fill: var(--soft); font: 13px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
svg .even { stroke: var(--soft); stroke-dasharray: 5 5; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: .25rem .65rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
ul.key { list-style: none; padding: 0; margin: .2rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
ul.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; margin-right: .45rem; }
"""
DEFINITIONS = (
    "TTFT: from sending, connecting included, to the first piece of the answer with generated tokens. TPOT: (time of the last "
    "piece - time of the first) / (output tokens - 1). ITL: gaps between pieces; one piece may hold several tokens. "
    "Interactivity: 1 / median TPOT. Rates: over the time from the first sending to the end of the last answer. Goodput: "
    "requests a second that kept every budget. Tokens: the server's own count."
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


def page(results: Sequence[BenchResult]) -> str:
    """The page. A level without a figure is left out of the curve of that figure, never out of the tables."""
    names = unique([result.label for result in results])
    models = ", ".join(sorted({result.model for result in results}))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>inlay bench: {escape(models)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>Throughput against interactivity: {escape(models)}</h1>",
        "<p>All figures are measured, by <code>inlay bench</code>. Up and to the right is better; beside points: loads.</p>",
        plot(
            [interactivity_curve(name, result) for name, result in zip(names, results, strict=True)],
            across="interactivity: tokens/s per user",
            up="output tokens/s, all users",
        ),
        key(names),
        *goodput_plot(names, results),
        *(section(name, result) for name, result in zip(names, results, strict=True)),
        f"<h2>Definitions</h2><p>{DEFINITIONS}</p></body></html>\n",
    ]
    return "\n".join(parts)


def interactivity_curve(name: str, result: BenchResult) -> Curve:
    """Output tokens a second over tokens a second of one user, in the order of the load."""
    points = []
    for level in by_load(result):
        x, y = level.summary.interactivity, level.summary.output_rate
        if x is not None:
            told = f"{name}, {level.load}: {y:.1f} tokens/s, {x:.1f} tokens/s per user"
            points.append(Point(x, y, f"{level.load.value:g}", told))
    return Curve(name, tuple(points))


def goodput_plot(names: Sequence[str], results: Sequence[BenchResult]) -> list[str]:
    """Goodput over the offered rate, where levels of an open loop have budgets; the dashed line is every request kept."""
    curves = []
    for name, result in zip(names, results, strict=True):
        points = []
        for level in by_load(result):
            good = level.summary.goodput
            if level.load.kind == "open" and good is not None:
                told = f"{name}, {level.load}: {good:.2f} requests/s kept {budgets(result)}"
                points.append(Point(level.load.value, good, f"{level.summary.goodput_share or 0.0:.0%}", told))
        curves.append(Curve(name, tuple(points)))
    if not any(curve.points for curve in curves):
        return []
    kept = ", ".join(sorted({budgets(result) for result in results if result.budgets}))
    drawn = plot(curves, across="requests/s sent", up="requests/s within budgets", has_diagonal=True)
    return [f"<h2>Goodput at rising load: {escape(kept)}</h2>", drawn, key(names)]


def budgets(result: BenchResult) -> str:
    """`TTFT 200 ms, TPOT 50 ms`."""
    return ", ".join(f"{name.upper()} {1e3 * seconds:g} ms" for name, seconds in result.budgets.items())


def by_load(result: BenchResult) -> list[Level]:
    """The levels from the least load to the most."""
    return sorted(result.levels, key=lambda level: (level.load.kind, level.load.value))


def section(name: str, result: BenchResult) -> str:
    """One result: what it was, its table, its notes."""
    facts = result.facts
    told = [f"{result.model} at {result.url}", *(str(facts[item]) for item in ("date", "hardware") if facts.get(item))]
    head, rows = shown(result)
    table = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    heading = "".join(f"<th>{escape(text)}</th>" for text in head)
    notes = "".join(f"<p>{escape(str(note))}</p>" for note in facts.get("notes", ()))
    command = f"<p><code>{escape(str(facts['command']))}</code></p>" if facts.get("command") else ""
    if result.interrupted:
        notes = f"<p>This run was interrupted: its last level is partial.</p>{notes}"
    return (
        f"<h2>{escape(name)}</h2><p>{escape('; '.join(told))}</p>{command}"
        f'<div class="scroll"><table><tr>{heading}</tr>{table}</table></div>{notes}'
    )


def shown(result: BenchResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the levels' table, without the columns that no level has a figure for."""
    rows = [cells(level) for level in result.levels]
    kept = [i for i in range(len(HEAD)) if not rows or any(row[i] != "-" for row in rows)]
    return tuple(HEAD[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


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
