"""How long a fused run of equal blocks takes, from a few lengths that were measured: seconds = a + b * length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inlay.specs.profile import Estimate

LENGTHS = (1, 2, 4)


@dataclass(frozen=True)
class RunFit:
    """The line through measured lengths; `error` is the greatest share by which it misses any of them."""

    base: float
    slope: float
    error: float
    below: float
    above: float

    def predict(self, length: int) -> Estimate:
        """Seconds of a fused run of that many blocks, calibrated; the interval is their spread and the error."""
        value = max(self.base + self.slope * length, 0.0)
        low, high = value * max(1.0 - self.below - self.error, 0.0), value * (1.0 + self.above + self.error)
        return Estimate(value=value, low=low, high=high, grade="calibrated")


def fit_runs(measured: Mapping[int, Estimate]) -> RunFit | None:
    """The fit from the lengths of LENGTHS, checked on every other length there is; None where one of LENGTHS is missing."""
    if any(length not in measured for length in LENGTHS):
        return None
    values = [measured[length].value for length in LENGTHS]
    if min(values) <= 0:
        return None
    mean, middle = sum(LENGTHS) / len(LENGTHS), sum(values) / len(values)
    spread = sum((length - mean) ** 2 for length in LENGTHS)
    slope = sum((length - mean) * (value - middle) for length, value in zip(LENGTHS, values, strict=True)) / spread
    base = middle - slope * mean
    error = max(abs(base + slope * length - item.value) / item.value for length, item in measured.items())
    below = max((item.value - item.low) / item.value for item in measured.values())
    above = max((item.high - item.value) / item.value for item in measured.values())
    return RunFit(base=base, slope=slope, error=error, below=below, above=above)
