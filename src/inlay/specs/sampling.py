"""How a token is chosen from logits: the parameters that travel with each row of a batch."""

from __future__ import annotations

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Greedy at temperature 0; else softmax at `temperature` over the smallest set of tokens of mass `top_p`,
    of at most `top_k` tokens (0 = all). The choice depends on logits, seed and position alone, never on the batch.
    `top_n` asks for that many log-probabilities beside the chosen one's (0 = none, -1 = not even the chosen one's)."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    top_n: int = -1
    forbidden: tuple[int, ...] = ()


class SampledToken(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen token of one row; log-probabilities only where asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
