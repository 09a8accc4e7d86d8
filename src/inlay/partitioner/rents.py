"""What a byte of a full device is worth: rates in seconds a byte that raise the bound from below where memory binds.

Whoever must fit pays at least (memory in use - memory there is) * rate more than nothing, so that charging it and giving the
whole memory back keeps a bound true for every plan that fits (Lagrange). The best rates make the proof short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inlay.partitioner.problem import Problem
from inlay.partitioner.remaining import INFINITE, Remaining

GOLDEN = (5**0.5 - 1) / 2
TRIES = 10


def rented(problem: Problem, devices: Sequence[int]) -> tuple[dict[int, float], Remaining] | None:
    """Rates for these devices, which all have a capacity, and the bound with them; None where nothing is gained."""
    free = Remaining(problem)
    base = free.after(0, None)
    if not devices or base in (0.0, INFINITE):
        return None
    rates = dict.fromkeys(devices, 0.0)
    for device in devices:
        most = 4.0 * base / max(problem.capacity(device) or 1, 1)

        def bound(rate: float, device: int = device) -> float:
            tried = {**rates, device: rate}
            return Remaining(problem, tried).after(0, None) - rent(problem, tried)

        rates[device] = _highest(bound, most)
    best = Remaining(problem, rates)
    gained = best.after(0, None) - rent(problem, rates) > base
    return (rates, best) if gained else None


def rent(problem: Problem, rates: dict[int, float]) -> float:
    """What the whole memory of these devices costs at these rates."""
    return sum(rate * (problem.capacity(device) or 0) for device, rate in rates.items())


def _highest(height: Callable[[float], float], most: float) -> float:
    """Where a function that rises and then falls is highest between 0 and `most`, by golden section."""
    low, high = 0.0, most
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = height(left), height(right)
    for _ in range(TRIES):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = height(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = height(right)
    return left if at_left >= at_right else right
