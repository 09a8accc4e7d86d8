"""The rule for greedy tokens: equal to the reference, or parted where the reference itself was as good as undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from truth import Truth


@dataclass(frozen=True)
class Divergence:
    """Where a continuation left the reference: step, margin of the reference there, and whether that excuses it."""

    prompt: int
    step: int
    margin: float
    excused: bool


def compare(truths: Sequence[Truth], found: Sequence[Sequence[int]], *, logit_error: float) -> list[Divergence]:
    """One entry per prompt that differs. Excused where the top-two margin is below ten times the measured logit error."""
    different = []
    for index, (truth, tokens) in enumerate(zip(truths, found, strict=True)):
        if tuple(tokens) != truth.tokens:
            step = next((i for i, (a, b) in enumerate(zip(truth.tokens, tokens, strict=False)) if a != b), len(tokens))
            margin = truth.margins[step] if step < len(truth.margins) else float("inf")
            different.append(Divergence(index, step, margin, margin < 10 * logit_error))
    return different
