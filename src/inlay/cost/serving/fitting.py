"""A robust fit of non-negative coefficients to times, in the logarithm, held to a prior: few points move it little."""

from __future__ import annotations

import numpy as np

ROUNDS = 25
SCALE = 0.1  # residuals beyond it count linearly, not in squares (soft L1)


def fit(
    terms: np.ndarray,
    seconds: np.ndarray,
    *,
    prior: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
    strength: float,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients within [least, most] for which log(terms @ coefficients) is near log(seconds).

    `terms` is [points, terms], `seconds` [points]. `strength` is how many points the prior counts for: moving a coefficient
    away costs as much as the change it makes to predictions. Gauss-Newton steps on reweighted residuals, each a small problem
    with bounds that is solved coordinate by coordinate.
    """
    found = prior.copy()
    share = np.mean(terms / seconds[:, None], axis=0)
    given = np.ones(len(seconds)) if weights is None else weights
    for _ in range(ROUNDS):
        predicted = np.maximum(terms @ found, 1e-9)
        residual = np.log(predicted / seconds)
        robust = given / np.sqrt(1.0 + (residual / SCALE) ** 2)
        slope = terms / predicted[:, None]
        matrix = (slope * robust[:, None]).T @ slope + np.diag(strength * share**2 + 1e-12)
        target = (slope * robust[:, None]).T @ (slope @ found - residual) + strength * share**2 * prior + 1e-12 * prior
        step = _within(matrix, target, found, least, most)
        change = np.max(np.abs(step - found) * share, initial=0.0)
        found = 0.5 * (found + step)
        if change < 1e-5:
            break
    return found


def _within(matrix: np.ndarray, target: np.ndarray, start: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The minimum of x'Mx/2 - t'x in a box, for a positive M: solve for what is free, pin what leaves the box, and free one
    that the slope pushes back in, until nothing changes."""
    found: np.ndarray = np.clip(start, least, most)
    pinned = np.zeros(len(found), dtype=bool)
    for _ in range(4 * len(found)):
        free = ~pinned
        found[free] = np.linalg.solve(matrix[np.ix_(free, free)], target[free] - matrix[np.ix_(free, pinned)] @ found[pinned])
        outside = free & ((found < least) | (found > most))
        found = np.clip(found, least, most)
        if outside.any():
            pinned |= outside
            continue
        slope = (matrix @ found - target) / np.sqrt(np.diag(matrix))
        inward = np.where(found <= least, -slope, slope) * pinned
        if not pinned.any() or inward.max() <= 1e-9:
            break
        pinned[int(np.argmax(inward))] = False
    return found
