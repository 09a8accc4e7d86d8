"""Slo: the limits that an answer should keep, by the names of BUDGETS, and when it does. For load on servers and for plans."""

from __future__ import annotations

from collections.abc import Mapping

from inlay.errors import InputError

BUDGETS = ("ttft", "tpot", "e2e")
"""Seconds to the first token, mean seconds a token after it, and seconds to the last token."""


def within(budgets: Mapping[str, float], *, ttft: float, tpot: float | None, e2e: float) -> bool:
    """Whether an answer with these seconds keeps every budget; one of a single token, which has no TPOT, keeps that one."""
    found = {"ttft": ttft, "tpot": tpot or 0.0, "e2e": e2e}
    return all(found[name] <= budget for name, budget in budgets.items())


def parse_budgets(text: str) -> dict[str, float]:
    """Seconds by name from `ttft:200,tpot:50` (milliseconds). Raises InputError."""
    found: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition(":")
        try:
            milliseconds = float(value)
        except ValueError:
            milliseconds = 0.0
        if name not in BUDGETS or not 0 < milliseconds < float("inf") or name in found:
            expected = f"expected each of {', '.join(BUDGETS)} at most once with milliseconds above 0"
            raise InputError(f"budget {item!r} in {text!r}, {expected}", hint="write for example ttft:200,tpot:50")
        found[name] = milliseconds / 1e3
    return found
