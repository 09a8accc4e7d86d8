"""How far one frontier lies from another: ratios at equal interactivity and at equal throughput, and where it loses.

A frontier offers, at an interactivity, the most of its vertices that are at least that fast; nothing lies between vertices or
beyond the ends. Two frontiers under one model err together, so no band is made of two bands: the ratio is of what is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from inlay.planner.report.document import Table, Trace

Corner = tuple[float, float]


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """At `at`: what `ours` offers over what `theirs` does. Infinite where only ours reaches it, zero where only theirs does,
    None where neither does."""

    at: float
    ratio: float | None


def offered(corners: Sequence[Corner], x: float) -> float:
    """The most y of those with at least `x`; 0 where there is none."""
    return max((y for across, y in corners if across >= x), default=0.0)


def reached(corners: Sequence[Corner], y: float) -> float:
    """The largest x of those with at least `y`; 0 where there is none."""
    return max((x for x, up in corners if up >= y), default=0.0)


def shifts(ours: Sequence[Corner], theirs: Sequence[Corner], at: Sequence[float]) -> tuple[Shift, ...]:
    """Ratios of y at equal x."""
    return tuple(Shift(at=x, ratio=_ratio(offered(ours, x), offered(theirs, x))) for x in at)


def speed_shifts(ours: Sequence[Corner], theirs: Sequence[Corner], at: Sequence[float]) -> tuple[Shift, ...]:
    """Ratios of the largest x at equal y."""
    return tuple(Shift(at=y, ratio=_ratio(reached(ours, y), reached(theirs, y))) for y in at)


def losses(ours: Sequence[Corner], theirs: Sequence[Corner]) -> tuple[tuple[float, float], ...]:
    """Ranges of x, from 0, in which theirs offers more. What is offered changes at vertices alone, so these are exact."""
    ends = sorted({x for x, _ in (*ours, *theirs)})
    found: list[tuple[float, float]] = []
    start = 0.0
    for end in ends:
        if offered(ours, end) < offered(theirs, end):
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        start = end
    return tuple(found)


def corners_of(trace: Trace) -> tuple[Corner, ...]:
    """The vertices of a trace."""
    return tuple((vertex.x, vertex.y) for vertex in trace.vertices)


def shift_table(pairs: Sequence[tuple[str, Trace, Trace]], *, speeds: Sequence[float]) -> Table:
    """One row a pair of frontiers on an axis: ratios at the speeds, the ratio of speeds at a fifth of the rival's most, and
    where the first loses."""
    rows = []
    for name, ours, theirs in pairs:
        one, other = corners_of(ours), corners_of(theirs)
        level = 0.2 * max((y for _, y in other), default=0.0)
        lost = losses(one, other)
        told = ", ".join(f"{low:.0f} to {high:.0f}" for low, high in lost) or "nowhere"
        ratios = [said(shift.ratio) for shift in shifts(one, other, speeds)]
        rows.append((name, *ratios, said(speed_shifts(one, other, [level])[0].ratio), told))
    head = ("over", *(f"@{speed:g}" for speed in speeds), "faster at 20 %", "loses at tokens/s/user")
    note = (
        "Throughput over that of the other frontier at so many tokens/s per user; then the ratio of the fastest user at a "
        "fifth of the other's most throughput. Forced: the chip must be used, so below 1 it costs more than it gives."
    )
    return Table(title="Shifts between frontiers (modelled)", head=head, rows=tuple(rows), note=note)


def said(ratio: float | None) -> str:
    """`1.42x`; "only here" where the other cannot, "cannot" where this one cannot."""
    if ratio is None:
        return "-"
    if math.isinf(ratio):
        return "only here"
    return "cannot" if ratio == 0.0 else f"{ratio:.2f}x"


def _ratio(ours: float, theirs: float) -> float | None:
    if theirs:
        return ours / theirs
    return math.inf if ours else None
