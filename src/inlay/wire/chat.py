"""POST /v1/chat/completions: the request, the reply and the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inlay.errors import RequestError
from inlay.wire.placement import Served
from inlay.wire.sampling import SamplingFields, TopCount
from inlay.wire.usage import Usage


class ContentPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a message; only text is served."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One turn. Several text parts are joined by a line break, as vLLM joins them for templates that take text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]
    name: str | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None

    def plain(self, *, name: str) -> dict[str, Any]:
        """The message as a chat template takes it. Raises RequestError, under `name`, for what is not text."""
        for field in ("tool_calls", "function_call", "audio"):
            if getattr(self, field):
                raise RequestError(f"`{name}.{field}` is set, expected a text message: it is not served yet", param="messages")
        content = self.content
        if not isinstance(content, str):
            for i, part in enumerate(content):
                if part.type != "text" or part.text is None:
                    found = f"`{name}.content[{i}]` is a part of type {part.type!r:.80}"
                    raise RequestError(f"{found}, expected `text`: only text is served", param="messages")
            content = "\n".join(part.text or "" for part in content)
        plain: dict[str, Any] = {"role": self.role, "content": content}
        return plain if self.name is None else plain | {"name": self.name}


ChatMessages = Annotated[list[ChatMessage], Meta(min_length=1, max_length=1024)]


class ChatRequest(SamplingFields, frozen=True, kw_only=True):
    """A conversation to continue."""

    messages: ChatMessages
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None

    def check(self) -> None:
        """Raises RequestError for messages that are not text and for `top_logprobs` without `logprobs`."""
        plain_messages(self.messages)
        if self.top_logprobs and not self.logprobs:
            found = f"`top_logprobs` is {self.top_logprobs} but `logprobs` is not true"
            raise RequestError(f"{found}, expected both", param="top_logprobs", hint='send "logprobs": true as well')


def plain_messages(messages: list[ChatMessage]) -> tuple[dict[str, Any], ...]:
    """The messages as a chat template takes them: role, content as text, and name where given. Raises RequestError."""
    return tuple(message.plain(name=f"messages[{i}]") for i, message in enumerate(messages))


class ChatTopLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """One of the most likely tokens at a position; `bytes` is its UTF-8."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen token of one position and its rivals."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[ChatTopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Log-probabilities in the chat form."""

    content: list[ChatTokenLogprob]


def chat_logprobs(rows: Sequence[Any]) -> ChatLogprobs:
    """The chat form of rows [token id, its text, log-probability, [[id, text, log-probability], ...]].

    A row without a log-probability (the first token of an echoed prompt) is left out: the form has no null."""
    return ChatLogprobs(
        content=[
            ChatTokenLogprob(
                token=text,
                logprob=logprob,
                bytes=list(text.encode()),
                top_logprobs=[ChatTopLogprob(token=rival, logprob=at, bytes=list(rival.encode())) for _, rival, at in top],
            )
            for _, text, logprob, top in rows
            if logprob is not None
        ]
    )


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The assistant's message."""

    content: str
    role: str = "assistant"
    refusal: str | None = None


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One whole choice."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The whole reply."""

    id: str
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    object: str = "chat.completion"
    usage: Usage | UnsetType = UNSET
    inlay: Served | UnsetType = UNSET


class ChatDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds: the role first, then text, at last nothing."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of one choice."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of a stream; the usage chunk has no choices."""

    id: str
    created: int
    model: str
    choices: tuple[ChatChunkChoice, ...]
    object: str = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    inlay: Served | UnsetType = UNSET
