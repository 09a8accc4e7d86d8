"""What samples say: quartiles, and how surely one thing takes longer than another. Pure; times nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inlay.errors import InputError
from inlay.specs.profile import Estimate


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """The 25 % quantile, the median and the 75 % quantile, interpolated. Raises InputError without samples."""
    if not len(samples):
        raise InputError("quartiles of no samples, expected at least one")
    low, median, high = np.quantile(np.asarray(samples, np.float64), (0.25, 0.5, 0.75))
    return float(low), float(median), float(high)


def ratio_interval(
    samples: Sequence[float],
    others: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
    paired: bool = True,
) -> Estimate:
    """median(samples) / median(others) with its bootstrap percentile interval; below 1 the first is faster.

    `paired` draws rounds: sample i of both was taken in round i, so noise that hit a round stays on both sides. Without
    it the two are drawn apart. The same seed gives the same interval. Raises InputError for fewer than 2 samples, for
    samples that are not above zero, and for paired samples of unequal number.
    """
    ours, theirs = np.asarray(samples, np.float64), np.asarray(others, np.float64)
    if min(len(ours), len(theirs)) < 2 or (paired and len(ours) != len(theirs)):
        wanted = "as many of each, at least 2" if paired else "at least 2 of each"
        raise InputError(f"{len(ours)} and {len(theirs)} samples, expected {wanted}")
    if not (np.all(ours > 0) and np.all(theirs > 0) and np.all(np.isfinite(ours)) and np.all(np.isfinite(theirs))):
        raise InputError("samples hold a value that is not above zero, expected seconds")
    if not 0 < confidence < 1 or resamples < 1:
        raise InputError(f"confidence is {confidence} with {resamples} resamples, expected it between 0 and 1 with some")
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(ours), size=(resamples, len(ours)))
    other = drawn if paired else generator.integers(len(theirs), size=(resamples, len(theirs)))
    ratios = np.median(ours[drawn], axis=1) / np.median(theirs[other], axis=1)
    low, high = np.quantile(ratios, ((1 - confidence) / 2, (1 + confidence) / 2))
    value = float(np.median(ours) / np.median(theirs))
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), grade="measured")
