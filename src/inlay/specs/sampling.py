"""How a token is chosen from logits: the parameters that travel with each row of a batch."""

from __future__ import annotations

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Greedy at temperature 0; else softmax at `temperature` over the smallest set of tokens of mass `top_p`,
    of at most `top_k` tokens (0 = all), none less likely than `min_p` times the likeliest.

    The choice depends on logits, seed, position, mask and history alone, never on the batch. `bias` is added to logits,
    pairs (token id, amount); `repetition` divides what speaks for a token that came before (prompt included; 1 = off),
    `frequency` is taken off once for each time it was generated, `presence` once if it was. `forbidden` tokens do not come
    before position `until` (0 = at none).
    `top_n` asks for that many log-probabilities beside the chosen one's (0 = none, -1 = not even the chosen one's).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    top_n: int = -1
    forbidden: tuple[int, ...] = ()
    until: int = 0
    bias: tuple[tuple[int, float], ...] = ()
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0

    def forbidden_at(self, position: int) -> tuple[int, ...]:
        """The tokens that may not come at a position, counted from the first of the prompt."""
        return self.forbidden if self.until == 0 or position < self.until else ()

    @property
    def looks_back(self) -> bool:
        """Whether the choice depends on the tokens before it."""
        return self.repetition != 1.0 or self.frequency != 0.0 or self.presence != 0.0


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tokens before a position: ids of the `prompt`, each once and in no promised order (left out where they do not
    matter), and the `generated` ones in order."""

    prompt: tuple[int, ...] = ()
    generated: tuple[int, ...] = ()

    def then(self, tokens: tuple[int, ...]) -> History:
        """The history after `tokens` more."""
        return History(prompt=self.prompt, generated=(*self.generated, *tokens)) if tokens else self


class SampledToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The chosen token of one row; log-probabilities only where asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
