"""The request fields that completions and chat share, with the caps that keep one request from harming others."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inlay.errors import RequestError
from inlay.wire.placement import PlacementRequest
from inlay.wire.structured import ResponseFormat, StructuredOutputs

TOKEN_LIMIT = 2**31 - 1
SEED_LIMIT = 2**63 - 1

Choices = Annotated[int, Meta(ge=1, le=16)]
Count = Annotated[int, Meta(ge=0, le=TOKEN_LIMIT)]
TopCount = Annotated[int, Meta(ge=0, le=20)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
StopTexts = Annotated[list[StopText], Meta(max_length=16)]
TokenId = Annotated[int, Meta(ge=0, le=TOKEN_LIMIT)]
TokenIds = Annotated[list[TokenId], Meta(max_length=128)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Biases = Annotated[dict[str, float], Meta(max_length=1024)]
BIAS_LIMIT = 100.0


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream carries beside text: a last chunk with the usage, and the usage so far on every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen, how many, and how they come back. `None` is the same as leaving the field out."""

    model: str
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    min_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=TOKEN_LIMIT)] | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    logit_bias: Biases | None = None
    n: Choices | None = None
    stop: StopText | StopTexts | None = None
    stop_token_ids: TokenIds | None = None
    seed: Annotated[int, Meta(ge=-SEED_LIMIT - 1, le=SEED_LIMIT)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    user: str | None = None
    inlay: PlacementRequest | None = None

    @property
    def token_budget(self) -> int | None:
        """How many tokens may be generated; the newer name wins. None when neither was given."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, none, one or many."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def biases(self) -> dict[int, float]:
        """What is added to the logits of which token. Raises RequestError for a key that is no token id, and for more than
        100 either way."""
        found = {}
        for key, amount in (self.logit_bias or {}).items():
            if not (key.isascii() and key.isdigit() and int(key) <= TOKEN_LIMIT):
                expected = f"expected a token id, 0 to {TOKEN_LIMIT}, as text"
                raise RequestError(f"`logit_bias` has the key {key!r:.80}, {expected}", param="logit_bias")
            if not -BIAS_LIMIT <= amount <= BIAS_LIMIT:
                expected = f"expected {-BIAS_LIMIT:g} to {BIAS_LIMIT:g}"
                raise RequestError(f"`logit_bias` of token {key} is {amount}, {expected}", param="logit_bias")
            found[int(key)] = amount
        return found

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def counts_continuously(self) -> bool:
        """Whether every chunk of a stream carries the usage so far."""
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)
