"""What a cut is chosen for: one objective to be least, and budgets that others must keep. As data and as people write it."""

from __future__ import annotations

import re

import msgspec

from inlay.errors import PartitionError
from inlay.units import format_seconds, parse_seconds

OBJECTIVES = ("latency", "throughput", "cost", "energy")
"""Seconds of one pass; seconds between two results of a stream (the busiest device's); dollars; joules, both for one pass."""
UNITS = {"latency": "s", "throughput": "s", "cost": "$", "energy": "J"}


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """The objective that is to be least, one of OBJECTIVES, and by objective the most that others may come to."""

    objective: str = "latency"
    within: dict[str, float] = {}

    @property
    def is_plain(self) -> bool:
        """Whether it is latency without a budget."""
        return self.objective == "latency" and not self.within


def parse_goal(objective: str, within: list[str]) -> Goal:
    """A goal as written: an objective, and budgets such as "latency=120ms" or "cost=0.002".

    Raises PartitionError for an unknown objective, a budget twice, and one that is not a number with its unit.
    """
    budgets: dict[str, float] = {}
    for text in within:
        name, _, amount = text.partition("=")
        _known(name.strip(), f"budget {text!r}")
        if name.strip() in budgets:
            raise PartitionError(f"budget {text!r} comes second for {name.strip()}, expected one for each", hint="remove one")
        budgets[name.strip()] = _amount(name.strip(), amount.strip(), text)
    _known(objective, "objective")
    return Goal(objective=objective, within=budgets)


def _known(name: str, what: str) -> None:
    if name not in OBJECTIVES:
        raise PartitionError(f"{what}: {name!r} is not known, expected one of: {', '.join(OBJECTIVES)}")


def _amount(name: str, amount: str, text: str) -> float:
    if UNITS[name] == "s":
        value = float(parse_seconds(amount, name=f"budget {text!r}"))
    else:
        found = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*(\$|J)?", amount)
        if found is None or found.group(2) not in (None, UNITS[name]):
            raise PartitionError(
                f"budget {text!r} has {amount!r}, expected a number in {UNITS[name]}", hint=f"for example {name}=0.5"
            )
        value = float(found.group(1))
    if value <= 0:
        raise PartitionError(f"budget {text!r} is {value:g}, expected more than zero", hint="leave it out for no limit")
    return value


def format_amount(objective: str, value: float) -> str:
    """A value of an objective with its unit, as people read it."""
    if UNITS[objective] == "s":
        return format_seconds(value)
    return f"${value:.3g}" if objective == "cost" else f"{value:.3g} J"
