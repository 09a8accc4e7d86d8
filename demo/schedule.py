"""The learning rate and the batch's shape, as functions of the share of the budget used."""

from __future__ import annotations

import time
from dataclasses import dataclass

WARM_UP_STEPS = 15
FLAT_UNTIL = 0.5
LAST_FACTOR = 0.03
LONG_WINDOWS_FROM = 0.4


@dataclass(frozen=True)
class BatchShape:
    """How many windows of how many tokens make a step, and how many run at once."""

    rows: int
    length: int
    rows_at_once: int


def rate_factor(step: int, progress: float) -> float:
    """Warm up over the first steps, stay flat to half time, then fall linearly."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    if progress <= FLAT_UNTIL:
        return warm
    left = max(0.0, 1 - progress) / (1 - FLAT_UNTIL)
    return warm * (LAST_FACTOR + (1 - LAST_FACTOR) * left)


def batch_shape(progress: float) -> BatchShape:
    """Return 4,096 tokens a step: short windows first, long ones for the later, larger part."""
    if progress < LONG_WINDOWS_FROM:
        return BatchShape(rows=16, length=256, rows_at_once=8)
    return BatchShape(rows=8, length=512, rows_at_once=4)


class CpuClock:
    """CPU seconds of this process and of the interrupted ones before it."""

    def __init__(self, already_used: float = 0.0) -> None:
        self._already_used = already_used
        self._started = time.process_time()

    def used(self) -> float:
        """Return the CPU seconds used so far, over all threads."""
        return self._already_used + time.process_time() - self._started
