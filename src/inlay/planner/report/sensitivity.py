"""Which assumption flips a choice: each moved alone over its stated range, all others as assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from inlay.planner.report.document import Table

STEPS = 16  # of the range, before the crossing nearest to what was assumed is narrowed
HALVINGS = 30


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """A number that an answer rests on: as assumed, and the range that is tried. `scale` and `unit` are how it is shown."""

    name: str
    value: float
    low: float
    high: float
    unit: str = ""
    scale: float = 1.0

    def shown(self, value: float) -> str:
        """`120 us`."""
        return f"{value * self.scale:.4g} {self.unit}".strip()


class Swing(msgspec.Struct, frozen=True, kw_only=True):
    """The gain of one choice over the other as an assumption goes from one end to the other. `flip` is the value nearest to
    the assumed one at which they are equal, None where the choice stands over the whole range."""

    assumption: Assumption
    at_low: float
    at_value: float
    at_high: float
    flip: float | None


def swings(
    assumptions: Sequence[Assumption],
    gain: Callable[[Mapping[str, float]], float],
    *,
    steps: int = STEPS,
    halvings: int = HALVINGS,
) -> tuple[Swing, ...]:
    """One for each assumption, the widest first. `gain` is asked with the values that differ from the assumed ones; the choice
    flips where it crosses 1. A flip and back within one of the `steps` of a range is not seen."""
    base = gain({})
    found = []
    for item in assumptions:

        def at(value: float, name: str = item.name) -> float:
            return gain({name: value})

        low, high = at(item.low), at(item.high)
        crossings = [_crossing(at, item.value, end, base, steps, halvings) for end in (item.low, item.high)]
        flips = [crossing for crossing in crossings if crossing is not None]
        flip = min(flips, key=lambda value, of=item: abs(value - of.value), default=None)  # type: ignore[misc]
        found.append(Swing(assumption=item, at_low=low, at_value=base, at_high=high, flip=flip))
    return tuple(sorted(found, key=_width, reverse=True))


def swing_table(found: Sequence[Swing], *, title: str, gain: str, note: str = "") -> Table:
    """The table; `gain` says what the ratio is of."""
    rows = [
        (
            swing.assumption.name,
            swing.assumption.shown(swing.assumption.value),
            f"{swing.assumption.shown(swing.assumption.low)} to {swing.assumption.shown(swing.assumption.high)}",
            _times(swing.at_low),
            _times(swing.at_high),
            "stands" if swing.flip is None else f"at {swing.assumption.shown(swing.flip)}",
        )
        for swing in found
    ]
    base = f"{gain}: {_times(found[0].at_value)} as assumed." if found else ""
    head = ("assumption", "assumed", "range", "at its low end", "at its high end", "choice flips")
    return Table(title=title, head=head, rows=tuple(rows), note=" ".join(filter(None, (base, note))))


def _crossing(at: Callable[[float], float], start: float, end: float, base: float, steps: int, halvings: int) -> float | None:
    """The first value from `start` to `end` at which the gain is on the other side of 1, narrowed between two steps."""
    before, above = start, base >= 1.0
    for step in range(1, steps + 1):
        value = start + (end - start) * step / steps
        if (at(value) >= 1.0) != above:
            for _ in range(halvings):
                middle = (before + value) / 2
                before, value = (before, middle) if (at(middle) >= 1.0) != above else (middle, value)
            return value
        before = value
    return None


def _width(swing: Swing) -> float:
    values = (swing.at_low, swing.at_value, swing.at_high)
    return max(values) - min(values)


def _times(ratio: float) -> str:
    return "no rival" if ratio == float("inf") else f"{ratio:.2f}x"
