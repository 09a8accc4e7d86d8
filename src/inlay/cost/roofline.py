"""A guess where nothing was measured: the time that a device's limits allow, by its Roofline. Always modelled."""

from __future__ import annotations

from inlay.specs.profile import Estimate, Roofline

# The share of its limits that real code reaches: expected, at best, at worst.
EFFICIENCY = (0.5, 1.0, 0.15)


def roofline_seconds(roofline: Roofline, *, flops: float, traffic: int, dtype: str) -> Estimate | None:
    """launch + the longer of computing and moving, each at EFFICIENCY; None where no peak of that dtype is known.

    `traffic` is bytes read and written: weights, inputs and outputs. Source: Williams, Waterman, Patterson, 2009.
    """
    peak = roofline.peaks.get(dtype)
    if not peak or roofline.bandwidth <= 0:
        return None
    ideal = max(flops / peak, traffic / roofline.bandwidth)
    value, low, high = (roofline.launch + ideal / share for share in EFFICIENCY)
    return Estimate(value=value, low=low, high=high, grade="modelled")
