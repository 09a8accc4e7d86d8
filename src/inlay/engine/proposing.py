"""From a draft model's logits to a guess: the token, and what the target may need to know beside it. Pure.

Coupled rule: the guess is the draft's own choice under the same noise that the target will use at that position, so the two
agree as often as their distributions let them. Rejection rule: the guess is drawn from a truncated distribution that travels
with it; any will do, as long as it is the one that was drawn from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from inlay.engine.sampler import gumbel, survivors
from inlay.specs.device import Proposal
from inlay.specs.sampling import Sampling

Array = np.ndarray[Any, Any]
DRAFT_STREAM = 2
"""Which stream of the generator a drafted token is drawn from under the rejection rule: not that of the target's draws."""


class Proposed(NamedTuple):
    """One guess: `alternatives` are the next best tokens, best first, `proposal` what it was drawn from."""

    token: int
    alternatives: tuple[int, ...] = ()
    proposal: Proposal = ()


def propose(logits: Array, sampling: Sampling, *, position: int, alternatives: int = 0, truncate: int = 0) -> Proposed:
    """The guess for `position` from float32 logits [V]; with `truncate` > 0 drawn from its best so many tokens."""
    if truncate and sampling.temperature > 0:
        return _drawn(logits, sampling, position, truncate)
    if sampling.temperature == 0:
        scores, kept = logits, None
    else:
        kept = survivors(logits, sampling)
        scores = logits[kept].astype(np.float64) / sampling.temperature + gumbel(sampling.seed, position, logits.size)[kept]
    best = _largest(scores, 1 + alternatives)
    tokens = [int(index) for index in (best if kept is None else kept[best])]
    return Proposed(tokens[0], tuple(tokens[1:]))


def _drawn(logits: Array, sampling: Sampling, position: int, count: int) -> Proposed:
    kept = survivors(logits, sampling)
    best = kept[_largest(logits[kept], count)]
    weights = logits[best].astype(np.float64) / sampling.temperature
    mass = np.exp(weights - weights.max())
    mass /= mass.sum()
    generator = np.random.Generator(np.random.Philox(key=sampling.seed % 2**64, counter=[0, DRAFT_STREAM, position, 0]))
    chosen = min(int(np.searchsorted(np.cumsum(mass), generator.random(), side="right")), len(best) - 1)
    pairs = tuple((int(token), float(share)) for token, share in zip(best, mass, strict=True))
    return Proposed(int(best[chosen]), (), pairs)


def _largest(scores: Array, count: int) -> Array:
    """Indices of the `count` largest, largest first; the lower index first among equals."""
    if count == 1:
        return np.array([int(np.argmax(scores))])
    if count >= scores.size:
        return np.argsort(-scores, kind="stable")
    limit = np.partition(scores, scores.size - count)[scores.size - count]
    above = np.flatnonzero(scores >= limit)
    return above[np.argsort(-scores[above], kind="stable")][:count]
