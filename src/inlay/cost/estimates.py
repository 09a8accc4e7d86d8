"""Adding figures with their intervals and grades, and when one sum is surely less than another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inlay.specs.profile import GRADES, Estimate, Profile

NEGLIGIBLE = 0.01
NOTHING = Estimate(value=0.0, low=0.0, high=0.0, grade="measured")


def from_profile(profile: Profile) -> Estimate:
    """What was measured, with its quartiles."""
    return Estimate(value=profile.median, low=profile.low, high=profile.high, grade="measured")


def weakest(grades: Iterable[str]) -> str:
    """The grade of a figure that rests on all of these."""
    return max(grades, key=GRADES.index, default="measured")


def total(estimates: Iterable[Estimate]) -> Estimate:
    """The sum. Bounds of the intervals are added too, as if all were high or low at once, so that it is never too narrow.

    Its grade is the weakest one of which, with all that is weaker, more than NEGLIGIBLE of the sum is made.
    """
    held = list(estimates)
    value = sum(item.value for item in held)
    grade, weak = weakest(item.grade for item in held), 0.0
    for candidate in reversed(GRADES):
        weak += sum(item.value for item in held if item.grade == candidate)
        if weak > NEGLIGIBLE * value:
            grade = candidate
            break
    return Estimate(value=value, low=sum(item.low for item in held), high=sum(item.high for item in held), grade=grade)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The same figure so many times, or in another unit."""
    value, low, high = estimate.value * factor, estimate.low * factor, estimate.high * factor
    return Estimate(value=value, low=low, high=high, grade=estimate.grade)


def predicted(estimate: Estimate) -> Estimate:
    """The same figure, called calibrated at best: a sum of things measured apart is a prediction, not a measurement."""
    return Estimate(value=estimate.value, low=estimate.low, high=estimate.high, grade=weakest([estimate.grade, "calibrated"]))


def beats(candidate: Mapping[str, Estimate], rival: Mapping[str, Estimate]) -> bool:
    """Whether the candidate's sum is below the rival's beyond the noise: its high end below the other's low end.

    Both are given as named parts. Parts that both have cancel: the same block at the same place is equally slow in both.
    """
    mine = [item for name, item in candidate.items() if rival.get(name) != item]
    theirs = [item for name, item in rival.items() if candidate.get(name) != item]
    return total(mine).high < total(theirs).low
