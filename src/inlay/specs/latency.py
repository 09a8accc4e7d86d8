"""LatencyTable: how long a runner takes for a batch, as a few coefficients that travel with a deployment. Evaluated here,
made in `cost` or measured by the engine at its start; corrected as it goes by a pure function of what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

CORRECTION_WEIGHT = 0.1
CORRECTION_LIMIT = 16.0


class Point(msgspec.Struct, frozen=True):
    """One measurement: `batch` rows of `width` tokens over a past bucket of `past` rows took `seconds`."""

    batch: int
    width: int
    past: int
    seconds: float


class LatencyTable(msgspec.Struct, frozen=True, kw_only=True):
    """seconds(batch, width, past) = fixed + per_row * batch + per_token * batch * width + per_past * batch * past; `spread` is
    the largest relative error over the points it was fitted on; `overhead` seconds of messages around a batch."""

    fixed: float
    per_row: float
    per_token: float
    per_past: float
    spread: float
    overhead: float
    grade: str

    def seconds(self, *, batch: int, width: int, past: int) -> float:
        """Time of one batch on the device, without messages."""
        return self.fixed + batch * (self.per_row + self.per_token * width + self.per_past * past)


def fit_table(points: Sequence[Point], *, overhead: float, grade: str) -> LatencyTable:
    """The table with coefficients of at least 0 whose relative errors over the points are least in squares."""
    if not points:
        raise ValueError("a latency table needs at least one point")
    rows = np.array([[1.0, p.batch, p.batch * p.width, p.batch * p.past] for p in points])
    seconds = np.array([p.seconds for p in points])
    found = _non_negative(rows / seconds[:, None], np.ones(len(points)))
    errors = np.abs(rows @ found / seconds - 1.0)
    fixed, per_row, per_token, per_past = (float(value) for value in found)
    return LatencyTable(
        fixed=fixed,
        per_row=per_row,
        per_token=per_token,
        per_past=per_past,
        spread=float(errors.max()),
        overhead=overhead,
        grade=grade,
    )


def corrected(factor: float, *, predicted: float, seen: float, weight: float = CORRECTION_WEIGHT) -> float:
    """The factor of a runner and phase after one more batch: exponentially weighted, within 1/16 to 16."""
    if predicted <= 0.0:
        return factor
    ratio = min(max(seen / predicted, 1 / CORRECTION_LIMIT), CORRECTION_LIMIT)
    return (1.0 - weight) * factor + weight * ratio


def _non_negative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with non-negative unknowns by leaving out, one at a time, the one that is most negative."""
    kept = list(range(matrix.shape[1]))
    while True:
        solution = np.zeros(matrix.shape[1])
        part, *_ = np.linalg.lstsq(matrix[:, kept], target, rcond=None)
        solution[kept] = part
        if part.min() >= 0 or len(kept) == 1:
            return np.maximum(solution, 0.0)
        kept.pop(int(part.argmin()))
