"""Chooses a token from logits on the host of the device that computed them. Pure: logits, parameters, position.

Sampling is Gumbel-max: argmax(logits / temperature + g(seed, position, token)) over the surviving tokens, with
g from a counter generator (Philox), so the choice depends on nothing but these three and is reproducible anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inlay.specs.sampling import SampledToken, Sampling

Array = np.ndarray[Any, Any]
LIKELY = 256
"""As many tokens are sorted first for top-p; all of them only where these do not reach the mass."""


def choose(logits: Array, sampling: Sampling, *, position: int) -> SampledToken:
    """The token at `position` (0 = first of the prompt) from float32 logits [V]; ValueError when they are not finite."""
    if not np.isfinite(logits).all():
        count = int((~np.isfinite(logits)).sum())
        raise ValueError(f"{count} of {logits.size} logits are not finite at position {position}")
    scores = logits
    if sampling.forbidden:
        scores = logits.copy()
        scores[list(sampling.forbidden)] = -np.inf
    if sampling.temperature == 0:
        token = int(np.argmax(scores))
    else:
        token = _sample(scores, sampling, position)
    return described(token, logits, sampling)


def described(token: int, logits: Array, sampling: Sampling) -> SampledToken:
    """A chosen token with the log-probabilities that were asked for, of the logits as the model gave them."""
    if sampling.top_n < 0:
        return SampledToken(token=token)
    logprobs = _log_softmax(logits.astype(np.float64))
    best = np.argsort(-logprobs, kind="stable")[: sampling.top_n]
    top = tuple((int(item), float(logprobs[item])) for item in best)
    return SampledToken(token=token, logprob=float(logprobs[token]), top=top)


def survivors(scores: Array, sampling: Sampling) -> Array:
    """Indices of the tokens that top-k and top-p leave, in no promised order; never empty."""
    if sampling.top_k <= 0 and sampling.top_p >= 1:
        return np.flatnonzero(scores > -np.inf)
    mass = np.exp(_log_softmax(scores.astype(np.float64) / sampling.temperature))
    order = _best(mass, sampling.top_k if sampling.top_k > 0 else LIKELY)
    if sampling.top_k > 0:
        mass = mass / mass[order].sum()
    elif mass[order].sum() < sampling.top_p:
        order = _best(mass, mass.size)
    if sampling.top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(mass[order]), sampling.top_p)) + 1]
    return order[mass[order] > 0]


def _best(mass: Array, count: int) -> Array:
    """Indices of the `count` largest, largest first; the lower index first among equals."""
    if count >= mass.size:
        return np.argsort(-mass, kind="stable")
    limit = np.partition(mass, mass.size - count)[mass.size - count]
    above = np.flatnonzero(mass >= limit)
    return above[np.argsort(-mass[above], kind="stable")][:count]


def gumbel(seed: int, position: int, count: int) -> Array:
    """float64 [count] of standard Gumbel noise for one position: the same on every machine."""
    generator = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, position, 0]))
    return -np.log(-np.log(generator.random(count) + 2.0**-54))


def _sample(scores: Array, sampling: Sampling, position: int) -> int:
    kept = survivors(scores, sampling)
    noise = gumbel(sampling.seed, position, scores.size)
    return int(kept[np.argmax(scores[kept].astype(np.float64) / sampling.temperature + noise[kept])])


def _log_softmax(values: Array) -> Array:
    shifted: Array = values - values.max()
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result
