"""What experience teaches of drafts: which share is accepted, and how much longer verify steps take than the tables say."""

from __future__ import annotations

from dataclasses import dataclass, field

from inlay.specs.latency import corrected
from inlay.specs.speculation import ENUMERATED, FREE, SYNCHRONOUS

FIRST, LEAST = 3, 0.05
"""The first step of a mode weighs 1 in so many, each later one less, but never less than that."""
OUTLIER = 2.0
"""A step counts as at most so many times what such steps have taken so far, or as much as the step before it took: one long
pause is not a lesson, two are."""
FADE = 0.005
"""How far each lesson brings a slower mode back to the one in use: what it was blamed for once may have passed."""
TOGETHER = (SYNCHRONOUS, FREE, ENUMERATED)
"""Modes in which draft and target runner get in each other's way alike."""


@dataclass(slots=True, eq=False)
class Acceptance:
    """Drafts that were `accepted` of those `judged`, older verdicts counting less. A verdict judges the drafts that it accepts
    and the first that it does not: the shares of single verdicts have another mean than the share of all drafts."""

    accepted: float = 0.0
    judged: float = 0.0

    def judge(self, sent: int, accepted: int, *, forget: float) -> None:
        """The verdict on `sent` drafts; what was known before counts `forget` of what it did."""
        self.accepted = forget * self.accepted + accepted
        self.judged = forget * self.judged + min(sent, accepted + 1)

    def share(self, *, prior: float, weight: float) -> float:
        """Accepted of judged, where `weight` judged drafts are taken to have shown `prior`."""
        return (weight * prior + self.accepted) / (weight + self.judged)


@dataclass(slots=True, eq=False)
class Pace:
    """By mode, how many times longer than predicted its steps turned out (1 = as predicted); the last so many tries of drafts
    were `in_vain`."""

    factors: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    in_vain: int = 0

    def of(self, mode: str) -> float:
        """Of a mode; one that was not tried yet is taken to fare as the best of those like it."""
        if mode in self.factors or mode not in TOGETHER:
            return self.factors.get(mode, 1.0)
        return min((self.factors[other] for other in TOGETHER if other in self.factors), default=1.0)

    def learn(self, mode: str, *, predicted: float, seen: float) -> None:
        """One step in this mode: seconds predicted by the tables alone, and seconds that it took."""
        before, steps = self.of(mode), self.steps.get(mode, 0)
        ratio = min(seen / predicted, max(OUTLIER * before, self.last.get(mode, 0.0)))
        self.last[mode] = seen / predicted
        after = corrected(before, predicted=1.0, seen=ratio, weight=max(LEAST, 1.0 / (FIRST + steps)))
        self.factors[mode], self.steps[mode] = after, steps + 1
        for other, known in self.factors.items():
            if known > after:
                self.factors[other] = known + FADE * (after - known)
