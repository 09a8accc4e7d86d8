"""Text to ids and back, as vLLM's /tokenize and /detokenize spell it."""

from __future__ import annotations

import msgspec

from inlay.errors import RequestError
from inlay.wire.chat import ChatMessages
from inlay.wire.sampling import TokenId


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt or chat messages, one of the two; `model` may be left out."""

    model: str | None = None
    prompt: str | None = None
    messages: ChatMessages | None = None
    add_special_tokens: bool | None = None

    def check(self) -> None:
        """Raises RequestError unless exactly one of the two is there, and for messages without what their template writes."""
        if self.messages is not None and self.add_special_tokens is False:
            found = "`add_special_tokens` is false beside `messages`, whose template writes them"
            raise RequestError(f"{found}, expected a `prompt`", param="add_special_tokens")
        if (self.prompt is None) == (self.messages is None):
            found = "neither" if self.prompt is None else "both"
            raise RequestError(f"the request has {found} of `prompt` and `messages`, expected exactly one", param="prompt")


class TokenizeReply(msgspec.Struct, frozen=True, kw_only=True):
    """The ids, how many, and how many the model takes."""

    count: int
    max_model_len: int
    tokens: tuple[int, ...]


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ids to turn into text; `model` may be left out."""

    tokens: list[TokenId]
    model: str | None = None

    def check(self) -> None:
        """Nothing beyond the types."""


class DetokenizeReply(msgspec.Struct, frozen=True, kw_only=True):
    """The text of the ids."""

    prompt: str
