"""POST /v1/chat/completions: the request, the reply and the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inlay.errors import RequestError
from inlay.wire.placement import Served
from inlay.wire.sampling import SamplingFields, TopCount
from inlay.wire.tools import CalledFunction, FunctionDelta, ToolCall, ToolCallDelta, ToolChoice, Tools, check_tools
from inlay.wire.usage import Usage


class ContentPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a message; only text is served."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One turn. Several text parts are joined by a line break, as vLLM joins them for templates that take text."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    function_call: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None

    def plain(self, *, name: str) -> dict[str, Any]:
        """The message as a chat template takes it. Raises RequestError, under `name`, for what is not text."""
        for field in ("function_call", "audio"):
            if getattr(self, field):
                raise RequestError(f"`{name}.{field}` is set, expected a text message: it is not served yet", param="messages")
        if self.tool_calls and self.role != "assistant":
            raise RequestError(
                f"`{name}.tool_calls` is set in a message of role {self.role!r}, expected `assistant`", param="messages"
            )
        content = self.content
        if content is None and not self.tool_calls:
            found = f"`{name}.content` is missing, expected text"
            raise RequestError(found, param="messages", hint="only a message with `tool_calls` may lack it")
        if isinstance(content, list):
            for i, part in enumerate(content):
                if part.type != "text" or part.text is None:
                    found = f"`{name}.content[{i}]` is a part of type {part.type!r:.80}"
                    raise RequestError(f"{found}, expected `text`: only text is served", param="messages")
            content = "\n".join(part.text or "" for part in content)
        plain: dict[str, Any] = {"role": self.role, "content": content}
        others = {"name": self.name, "tool_call_id": self.tool_call_id, "reasoning_content": self.reasoning_content}
        plain |= {key: value for key, value in others.items() if value is not None}
        return plain | {"tool_calls": msgspec.to_builtins(self.tool_calls)} if self.tool_calls else plain


ChatMessages = Annotated[list[ChatMessage], Meta(min_length=1, max_length=1024)]


class ChatRequest(SamplingFields, frozen=True, kw_only=True):
    """A conversation to continue."""

    messages: ChatMessages
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    def check(self) -> None:
        """Raises RequestError for messages that are not text, for `top_logprobs` without `logprobs`, and for functions that
        do not fit together."""
        plain_messages(self.messages)
        check_tools(self.tools or (), self.tool_choice)
        if self.top_logprobs and not self.logprobs:
            found = f"`top_logprobs` is {self.top_logprobs} but `logprobs` is not true"
            raise RequestError(f"{found}, expected both", param="top_logprobs", hint='send "logprobs": true as well')


def plain_messages(messages: list[ChatMessage]) -> tuple[dict[str, Any], ...]:
    """The messages as a chat template takes them: role, content as text, calls of functions and what else is given of what
    templates know. Raises RequestError."""
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
    """The assistant's message; `content` is null where it only calls functions."""

    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] | UnsetType = UNSET

    @classmethod
    def of(cls, text: str, calls: Sequence[tuple[str, str, str]]) -> ChatAnswer:
        """Text and calls, each (id, name, arguments)."""
        if not calls:
            return cls(content=text)
        made = tuple(ToolCall(id=id, function=CalledFunction(name=name, arguments=told)) for id, name, told in calls)
        return cls(content=text or None, tool_calls=made)


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
    """What a chunk adds: the role first, then text and pieces of calls, at last nothing."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: tuple[ToolCallDelta, ...] | UnsetType = UNSET

    @classmethod
    def of(cls, text: str, pieces: Sequence[tuple[int, str, str, str]]) -> ChatDelta:
        """New text and pieces of calls, each (index, id, name, arguments); id and name are there in the first of a call."""
        made = tuple(_call_delta(*piece) for piece in pieces)
        return cls(content=text if text or not made else UNSET, tool_calls=made or UNSET)


def _call_delta(index: int, id: str, name: str, arguments: str) -> ToolCallDelta:
    if id:
        return ToolCallDelta(index=index, id=id, type="function", function=FunctionDelta(name=name, arguments=arguments))
    return ToolCallDelta(index=index, function=FunctionDelta(arguments=arguments))


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
