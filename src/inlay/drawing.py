"""Curves as SVG: axes from zero with round ticks, a colour a curve, bands, marks. Knows nothing of what is drawn.

Called by those who make pages: results of load on servers, plans. A drawing stands in a page or, `alone`, as a file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 920, 500
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 18, 58
COLOURS = ("#0b6bcb", "#d1495b", "#2a9d6f", "#8a5cd1", "#b7791f", "#0e8f9e", "#c2478f", "#5f6b7a")
LONE = (
    "svg{background:#fff} svg text{fill:#4a5564;font:13px 'DejaVu Sans',sans-serif} "
    ".grid{stroke:#d9dee5} .even{stroke:#5b6675;stroke-dasharray:5 5}"
)


@dataclass(frozen=True, slots=True)
class Point:
    """`text` stands beside it, `told` is shown when it is pointed at; `low` and `high` are the ends of its band in y."""

    x: float
    y: float
    text: str
    told: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order in which they are joined; "marks" are not joined and are drawn as hollow diamonds; a
    "wide" one is a pale line for what others lie on. `paint` is an
    index of COLOURS (None: the curve's place)."""

    name: str
    points: tuple[Point, ...]
    style: str = "line"
    paint: int | None = None


@dataclass(frozen=True, slots=True)
class _Axes:
    columns: list[float]
    rows: list[float]
    is_logarithmic: bool = False

    def x(self, value: float) -> float:
        return LEFT + value / self.columns[-1] * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = (math.log10(self.rows[0]), math.log10(self.rows[-1])) if self.is_logarithmic else (0.0, self.rows[-1])
        shown = math.log10(max(value, self.rows[0])) if self.is_logarithmic else value
        return HEIGHT - BOTTOM - (shown - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def plot(
    curves: Sequence[Curve],
    *,
    across: str,
    up: str,
    has_diagonal: bool = False,
    is_alone: bool = False,
    is_logarithmic: bool = False,
) -> str:
    """The SVG; `across` and `up` name the axes. `has_diagonal` draws where both are equal; `is_alone` gives it a style of its
    own, a white ground and a key; `is_logarithmic` has y in decades, at most three below the highest."""
    points = [point for curve in curves for point in curve.points]
    highest = max((point.y if point.high is None else point.high for point in points), default=1.0)
    lowest = min((point.y for point in points if point.y > 0), default=1.0)
    rows = decades(lowest, highest) if is_logarithmic else ticks(highest)
    axes = _Axes(ticks(max((point.x for point in points), default=1.0)), rows, is_logarithmic)
    label = f"{escape(up)} over {escape(across)}"
    space = f' xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"' if is_alone else ""
    parts = [f'<svg{space} viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    if is_alone:
        parts.append(f'<style>{LONE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>')
    parts += _grid(axes, across, up)
    if has_diagonal:
        end = min(axes.columns[-1], axes.rows[-1])
        parts.append(f'<line class="even" x1="{axes.x(0)}" y1="{axes.y(0)}" x2="{axes.x(end):.1f}" y2="{axes.y(end):.1f}"/>')
    parts += [_band(curve, axes, _paint(curve, index)) for index, curve in enumerate(curves)]
    for index, curve in enumerate(curves):
        paint = _paint(curve, index)
        line = " ".join(f"{axes.x(point.x):.1f},{axes.y(point.y):.1f}" for point in curve.points)
        if curve.style != "marks":
            dashes = ' stroke-dasharray="7 5"' if curve.style == "dashed" else ""
            width = '11" stroke-opacity="0.22' if curve.style == "wide" else "2"
            parts.append(f'<polyline points="{line}" fill="none" stroke="{paint}" stroke-width="{width}"{dashes}/>')
        mark = _diamond if curve.style == "marks" else _dot if curve.style == "wide" else _disc
        parts += [mark(point, axes.x(point.x), axes.y(point.y), paint) for point in curve.points]
    if is_alone:
        parts += _inner_key(curves)
    return "".join([*parts, "</svg>"])


def _grid(axes: _Axes, across: str, up: str) -> list[str]:
    parts = []
    for value in axes.rows:
        y = axes.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in axes.columns:
        x = axes.x(value)
        parts.append(f'<line class="grid" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{x:.1f}" x2="{x:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text transform="translate(20 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    return parts


def _band(curve: Curve, axes: _Axes, paint: str) -> str:
    """Between the ends of its points; of marks, a line through each."""
    banded = [(axes.x(p.x), axes.y(p.low), axes.y(p.high)) for p in curve.points if p.low is not None and p.high is not None]
    if curve.style == "marks" or len(banded) < 2:
        return "".join(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{paint}" stroke-opacity="0.4"/>'
            for x, low, high in banded
        )
    ends = [f"{x:.1f},{high:.1f}" for x, _, high in banded] + [f"{x:.1f},{low:.1f}" for x, low, _ in reversed(banded)]
    return f'<polygon points="{" ".join(ends)}" fill="{paint}" fill-opacity="0.12"/>'


def _disc(point: Point, x: float, y: float, paint: str) -> str:
    title = f"<title>{escape(point.told)}</title>"
    mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{paint}">{title}</circle>'
    return f"{mark}{_beside(point, x, y)}"


def _dot(point: Point, x: float, y: float, paint: str) -> str:
    title = f"<title>{escape(point.told)}</title>"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{paint}" fill-opacity="0.22">{title}</circle>{_beside(point, x, y)}'
    )


def _diamond(point: Point, x: float, y: float, paint: str) -> str:
    title = f"<title>{escape(point.told)}</title>"
    corners = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
    mark = f'<polygon points="{corners}" fill="transparent" stroke="{paint}" stroke-width="1.6">{title}</polygon>'
    return f"{mark}{_beside(point, x, y)}"


def _beside(point: Point, x: float, y: float) -> str:
    return f'<text x="{x + 8:.1f}" y="{y - 7:.1f}">{escape(point.text)}</text>' if point.text else ""


def _inner_key(curves: Sequence[Curve]) -> list[str]:
    """The key within the drawing, at the upper right."""
    parts = []
    for index, curve in enumerate(curves):
        y, paint = TOP + 14 + 19 * index, _paint(curve, index)
        parts.append(f'<text x="{WIDTH - RIGHT - 26}" y="{y}" text-anchor="end">{escape(curve.name)}</text>')
        point = Point(0.0, 0.0, "", curve.name)
        parts.append((_diamond if curve.style == "marks" else _disc)(point, WIDTH - RIGHT - 12, y - 4, paint))
    return parts


def key(names: Sequence[str]) -> str:
    """Which colour is which curve, as an HTML list."""
    items = (f'<li><i style="background:{colour(i)}"></i>{escape(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="key">{"".join(items)}</ul>'


def curve_key(curves: Sequence[Curve]) -> str:
    """As `key`, with the mark that each curve has: a disc, or a hollow diamond."""
    items = []
    for index, curve in enumerate(curves):
        paint = _paint(curve, index)
        look = f"background:{paint}"
        if curve.style == "marks":
            look = f"border:1.6px solid {paint};border-radius:0;transform:rotate(45deg) scale(.7)"
        items.append(f'<li><i style="{look}"></i>{escape(curve.name)}</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def ticks(highest: float) -> list[float]:
    """About six round numbers from 0 to at least `highest`."""
    if not highest > 0:
        return [0.0, 1.0]
    rough = highest / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(step * index, 10) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def decades(lowest: float, highest: float) -> list[float]:
    """1, 2 and 5 times powers of ten around what is shown; what is more than three powers below the highest is left out."""
    lowest = max(lowest, highest / 1e3)
    powers = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max((step for step in steps if step <= lowest), default=steps[0])
    last = min((step for step in steps if step >= highest), default=steps[-1])
    return [step for step in steps if first <= step <= last] if last > first else [first, 10 * first]


def colour(index: int) -> str:
    """The colour of a curve."""
    return COLOURS[index % len(COLOURS)]


def _paint(curve: Curve, index: int) -> str:
    return colour(index if curve.paint is None else curve.paint)
