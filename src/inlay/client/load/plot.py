"""Curves as SVG: axes from zero with round ticks, a colour a curve, a text at each point. Knows nothing of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 920, 500
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 18, 58
COLOURS = ("#0b6bcb", "#d1495b", "#2a9d6f", "#8a5cd1", "#b7791f", "#0e8f9e", "#c2478f", "#5f6b7a")


@dataclass(frozen=True, slots=True)
class Point:
    """`text` stands beside it, `told` is shown when it is pointed at."""

    x: float
    y: float
    text: str
    told: str


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order in which they are joined."""

    name: str
    points: tuple[Point, ...]


def plot(curves: Sequence[Curve], *, across: str, up: str, has_diagonal: bool = False) -> str:
    """The SVG; `across` and `up` name the axes. `has_diagonal` draws where both are equal."""
    points = [point for curve in curves for point in curve.points]
    columns = ticks(max((point.x for point in points), default=1.0))
    rows = ticks(max((point.y for point in points), default=1.0))

    def x_of(value: float) -> float:
        return LEFT + value / columns[-1] * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - value / rows[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(up)} over {escape(across)}">']
    for value in rows:
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in columns:
        x = x_of(value)
        parts.append(f'<line class="grid" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{x:.1f}" x2="{x:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text transform="translate(20 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    if has_diagonal:
        end = min(columns[-1], rows[-1])
        parts.append(f'<line class="even" x1="{x_of(0)}" y1="{y_of(0)}" x2="{x_of(end):.1f}" y2="{y_of(end):.1f}"/>')
    for index, curve in enumerate(curves):
        line = " ".join(f"{x_of(point.x):.1f},{y_of(point.y):.1f}" for point in curve.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour(index)}" stroke-width="2"/>')
        parts += [_mark(point, x_of(point.x), y_of(point.y), colour(index)) for point in curve.points]
    return "".join([*parts, "</svg>"])


def _mark(point: Point, x: float, y: float, paint: str) -> str:
    title = f"<title>{escape(point.told)}</title>"
    mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{paint}">{title}</circle>'
    return f'{mark}<text x="{x + 8:.1f}" y="{y - 7:.1f}">{escape(point.text)}</text>'


def key(names: Sequence[str]) -> str:
    """Which colour is which curve, as an HTML list."""
    items = (f'<li><i style="background:{colour(i)}"></i>{escape(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="key">{"".join(items)}</ul>'


def ticks(highest: float) -> list[float]:
    """About six round numbers from 0 to at least `highest`."""
    if not highest > 0:
        return [0.0, 1.0]
    rough = highest / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(step * index, 10) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def colour(index: int) -> str:
    """The colour of a curve."""
    return COLOURS[index % len(COLOURS)]
