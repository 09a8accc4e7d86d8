"""Which rate to try next when the highest is wanted at which enough requests keep their budgets. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

FIRST = 1.0
"""Requests a second of the first level."""
MOST_LEVELS = 12
LEAST = 0.05
"""Nothing slower is tried: one request in twenty seconds."""
CLOSE = 1.1
"""The search ends when the lowest rate that fails is at most so many times the highest that holds."""

Tried = Sequence[tuple[float, float]]
"""Rates with the share of requests that kept their budgets there, in the order in which they were tried."""


def next_rate(tried: Tried, *, share: float) -> float | None:
    """Twice the highest rate that held while none has failed, half the lowest that failed while none held, then the
    geometric middle between the two; None when they are close or enough has been tried. A rate holds when at least
    `share` of its requests kept their budgets."""
    if not tried:
        return FIRST
    lowest = min((rate for rate, kept in tried if kept < share), default=math.inf)
    highest = sustained(tried, share=share)
    if len(tried) >= MOST_LEVELS:
        return None
    if math.isinf(lowest):
        return 2 * (highest or FIRST)
    if highest is None:
        return lowest / 2 if lowest / 2 >= LEAST else None
    return None if lowest / highest <= CLOSE else math.sqrt(lowest * highest)


def sustained(tried: Tried, *, share: float) -> float | None:
    """The highest rate that held, of those below the lowest one that failed; None when none did."""
    lowest = min((rate for rate, kept in tried if kept < share), default=math.inf)
    return max((rate for rate, kept in tried if kept >= share and rate < lowest), default=None)
