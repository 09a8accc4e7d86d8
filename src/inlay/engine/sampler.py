"""Chooses a token from logits on the host of the device that computed them. Pure: logits, parameters, position, and what
the engine says of the tokens before and of those that a grammar allows.

Sampling is Gumbel-max: argmax(logits / temperature + g(seed, position, token)) over the surviving tokens, with
g from a counter generator (Philox), so the choice depends on nothing but these and is reproducible anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inlay.specs.sampling import History, SampledToken, Sampling

Array = np.ndarray[Any, Any]
LIKELY = 256
"""As many tokens are sorted first for top-p; all of them only where these do not reach the mass."""


def choose(
    logits: Array, sampling: Sampling, *, position: int, mask: bytes | None = None, history: History | None = None
) -> SampledToken:
    """The token at `position` (0 = first of the prompt) from float32 logits [V].

    `mask` holds a bit for each token, lowest first: only tokens whose bit is set may come (none or empty = all may);
    `history` is needed where `sampling.looks_back`. Log-probabilities are those of the logits as they are.
    Raises ValueError when logits are not finite, and when nothing may come.
    """
    check_finite(logits, position)
    scores = allowed_scores(logits, sampling, position=position, mask=mask, history=history)
    token = int(np.argmax(scores)) if sampling.temperature == 0 else _sample(scores, sampling, position)
    return described(token, logits, sampling)


def allowed_scores(
    logits: Array, sampling: Sampling, *, position: int, mask: bytes | None = None, history: History | None = None
) -> Array:
    """What is chosen from, [V]: logits with bias and penalties, minus infinity for what may not come. May be `logits`."""
    scores = logits
    if sampling.bias or sampling.looks_back:
        scores = penalised(logits, sampling, history=history or History())
    forbidden = sampling.forbidden_at(position)
    return _restricted(scores, forbidden, mask, position) if mask or forbidden else scores


def check_finite(logits: Array, position: int) -> None:
    """Raise ValueError with the count of logits that are not finite."""
    if not np.isfinite(logits).all():
        count = int((~np.isfinite(logits)).sum())
        raise ValueError(f"{count} of {logits.size} logits are not finite at position {position}")


def described(token: int, logits: Array, sampling: Sampling) -> SampledToken:
    """A chosen token with the log-probabilities that were asked for, of the logits as the model gave them."""
    return SampledToken(token=token) if sampling.top_n < 0 else _with_logprobs(token, logits, sampling.top_n)


def score(logits: Array, targets: Sequence[int], *, top_n: int) -> tuple[SampledToken, ...]:
    """The log-probability of each of `targets` [N] under the row of logits [N, V] before it, with the `top_n` likeliest."""
    return tuple(_with_logprobs(target, row, top_n) for row, target in zip(logits, targets, strict=True))


def penalised(logits: Array, sampling: Sampling, *, history: History) -> Array:
    """float64 [V]: the bias first, then repetition (over prompt and answer), then frequency and presence (answer alone)."""
    scores = logits.astype(np.float64)
    for token, amount in sampling.bias:
        scores[token] += amount
    generated = np.asarray(history.generated, np.int64)
    if sampling.repetition != 1.0:
        seen = np.union1d(np.asarray(history.prompt, np.int64), generated)
        old = scores[seen]
        scores[seen] = np.where(old > 0, old / sampling.repetition, old * sampling.repetition)
    if generated.size and (sampling.frequency != 0.0 or sampling.presence != 0.0):
        ids, counts = np.unique(generated, return_counts=True)
        scores[ids] -= counts * sampling.frequency + sampling.presence
    return scores


def survivors(scores: Array, sampling: Sampling) -> Array:
    """Indices of the tokens that min-p, top-k and top-p leave, in no promised order; never empty."""
    if sampling.top_k <= 0 and sampling.top_p >= 1 and sampling.min_p <= 0:
        return np.flatnonzero(scores > -np.inf)
    mass = np.exp(_log_softmax(scores.astype(np.float64) / sampling.temperature))
    if sampling.min_p > 0:
        mass = np.where(mass < sampling.min_p * mass.max(), 0.0, mass)
        mass /= mass.sum()
        if sampling.top_k <= 0 and sampling.top_p >= 1:
            return np.flatnonzero(mass)
    order = _best(mass, sampling.top_k if sampling.top_k > 0 else LIKELY)
    if sampling.top_k > 0:
        mass = mass / mass[order].sum()
    elif mass[order].sum() < sampling.top_p:
        order = _best(mass, mass.size)
    if sampling.top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(mass[order]), sampling.top_p)) + 1]
    return order[mass[order] > 0]


def gumbel(seed: int, position: int, count: int) -> Array:
    """float64 [count] of standard Gumbel noise for one position: the same on every machine."""
    generator = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, position, 0]))
    return -np.log(-np.log(generator.random(count) + 2.0**-54))


def _restricted(scores: Array, forbidden: tuple[int, ...], mask: bytes | None, position: int) -> Array:
    """A copy with minus infinity for what may not come. A mask that forbidden tokens would leave nothing of goes before
    them: where a grammar wants the text to end, `min_tokens` has no say."""
    if mask:
        if len(mask) * 8 < scores.size:
            raise ValueError(f"the mask has {len(mask) * 8} bits, expected at least {scores.size}, one for each token")
        allowed = np.unpackbits(np.frombuffer(mask, np.uint8), count=scores.size, bitorder="little").astype(bool)
    else:
        allowed = np.ones(scores.size, bool)
    if not allowed.any():
        raise ValueError(f"the mask allows no token at position {position}")
    ids = list(forbidden)
    fewer = allowed.copy()
    fewer[ids] = False
    return np.where(fewer if fewer.any() else allowed, scores, -np.inf)


def _with_logprobs(token: int, logits: Array, top_n: int) -> SampledToken:
    """The token with its log-probability and those of the `top_n` likeliest, the lower id first among equals."""
    logprobs = _log_softmax(logits.astype(np.float64))
    best = _best(logprobs, top_n) if top_n > 0 else ()
    top = tuple((int(item), float(logprobs[item])) for item in best)
    return SampledToken(token=token, logprob=float(logprobs[token]), top=top)


def _best(mass: Array, count: int) -> Array:
    """Indices of the `count` largest, largest first; the lower index first among equals."""
    if count >= mass.size:
        return np.argsort(-mass, kind="stable")
    limit = np.partition(mass, mass.size - count)[mass.size - count]
    above = np.flatnonzero(mass >= limit)
    return above[np.argsort(-mass[above], kind="stable")][:count]


def _sample(scores: Array, sampling: Sampling, position: int) -> int:
    kept = survivors(scores, sampling)
    noise = gumbel(sampling.seed, position, scores.size)
    return int(kept[np.argmax(scores[kept].astype(np.float64) / sampling.temperature + noise[kept])])


def _log_softmax(values: Array) -> Array:
    shifted: Array = values - values.max()
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result
