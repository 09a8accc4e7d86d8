"""From logits to tokens for one row of a batch: the next token, or with drafts those that are kept and the one after them.

Coupled rule (no proposals): at each position the target's own choice is made as if there were no draft, and drafts are kept as
long as they equal it. The choice depends on logits, seed and position alone, so the text is that of plain decoding, whoever
drafted. Rejection rule (with proposals): a draft x drawn from q is kept with probability min(1, p(x) / q(x)), else a token is
drawn from the positive part of p - q; what comes out is distributed as p (Leviathan et al. 2023, arXiv 2211.17192).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inlay.engine.sampler import allowed_scores, check_finite, choose, described, survivors
from inlay.specs.device import Proposal, Row
from inlay.specs.sampling import History, SampledToken, Sampling

Array = np.ndarray[Any, Any]
Draw = Callable[[Array, int], int]
"""Draws an index from probabilities, for the position whose offset in the row is given."""
TARGET_STREAM = 1


def verify(row: Row, logits: Array, sampling: Sampling) -> tuple[SampledToken, ...]:
    """The tokens of a row: `logits` [at least drafts + 1, V] in order of position, the first one after the row's last token
    that is no draft. ValueError where logits that matter are not finite."""
    first = row.past_length + len(row.tokens) - row.drafts
    drafts = row.tokens[len(row.tokens) - row.drafts :]
    if row.proposals and sampling.temperature > 0:
        return _by_rejection(row, logits, sampling, first, drafts)
    sampled: list[SampledToken] = []
    for offset in range(row.drafts + 1):
        mask, history = _before(row, drafts, offset)
        token = choose(logits[offset], sampling, position=first + offset, mask=mask, history=history)
        sampled.append(token)
        if offset == row.drafts or token.token != drafts[offset]:
            break
    return tuple(sampled)


def accept(distribution: Callable[[int], Array], drafts: Sequence[int], proposals: Sequence[Proposal], draw: Draw) -> list[int]:
    """The rejection rule itself: the tokens that come out, one more than drafts were kept. `distribution(i)` is the target's
    over the whole vocabulary at draft i, asked for in order and only as far as needed."""
    kept: list[int] = []
    for offset, (token, proposal) in enumerate(zip(drafts, proposals, strict=True)):
        target = distribution(offset)
        drafted = np.zeros_like(target)
        for item, share in proposal:
            drafted[item] = share
        keep = min(1.0, target[token] / drafted[token]) if drafted[token] > 0 else 0.0
        if keep >= 1.0 or draw(np.array([keep, 1.0 - keep]), offset) == 0:
            kept.append(token)
            continue
        rest = np.maximum(target - drafted, 0.0)
        return [*kept, draw(rest / rest.sum(), offset)]
    return [*kept, draw(distribution(len(drafts)), len(drafts))]


def distribution_of(
    logits: Array, sampling: Sampling, *, position: int = 0, mask: bytes | None = None, history: History | None = None
) -> Array:
    """float64 [V]: what a token is drawn from after all that changes logits, temperature and cut-offs; see `choose`."""
    allowed = allowed_scores(logits, sampling, position=position, mask=mask, history=history).astype(np.float64)
    kept = survivors(allowed, sampling)
    weights = allowed[kept] / sampling.temperature
    mass = np.exp(weights - weights.max())
    result = np.zeros(logits.size)
    result[kept] = mass / mass.sum()
    return result


def _by_rejection(row: Row, logits: Array, sampling: Sampling, first: int, drafts: tuple[int, ...]) -> tuple[SampledToken, ...]:
    taken = [0] * (row.drafts + 1)

    def draw(mass: Array, offset: int) -> int:
        counter = [taken[offset], TARGET_STREAM, first + offset, 0]
        taken[offset] += 1
        value = np.random.Generator(np.random.Philox(key=sampling.seed % 2**64, counter=counter)).random()
        return min(int(np.searchsorted(np.cumsum(mass), value, side="right")), len(mass) - 1)

    def distribution(offset: int) -> Array:
        check_finite(logits[offset], first + offset)
        mask, history = _before(row, drafts, offset)
        return distribution_of(logits[offset], sampling, position=first + offset, mask=mask, history=history)

    tokens = accept(distribution, drafts, row.proposals, draw)
    return tuple(described(token, logits[offset], sampling) for offset, token in enumerate(tokens))


def _before(row: Row, drafts: tuple[int, ...], offset: int) -> tuple[bytes | None, History | None]:
    """The mask of a position, and the history with the drafts before it."""
    mask = row.masks[offset] if row.masks else None
    return mask, None if row.history is None else row.history.then(drafts[:offset])
