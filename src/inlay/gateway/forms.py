"""The two shapes of an answer: completions and chat. Pure; the text comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from inlay.gateway.tally import Choice
from inlay.specs.generation import Delta
from inlay.wire import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    Completion,
    CompletionChoice,
    Served,
    Usage,
    chat_logprobs,
    completion_logprobs,
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """What every reply and chunk repeats. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str
    logprobs: bool


class Form(Protocol):
    """One shape. `opening`, `piece` and `ending` make the choice inside a chunk, `chunk` the chunk around it."""

    def opening(self, index: int) -> msgspec.Struct | None:
        """What a choice's stream begins with, before any text."""

    def piece(self, index: int, delta: Delta, *, offset: int) -> msgspec.Struct:
        """What a delta adds; `offset` is the number of characters before it."""

    def ending(self, index: int, reason: str) -> msgspec.Struct:
        """What a choice's stream ends with."""

    def chunk(
        self, choices: tuple[Any, ...], *, usage: Usage | UnsetType | None = UNSET, served: Served | UnsetType = UNSET
    ) -> msgspec.Struct:
        """One chunk."""

    def whole(self, choices: Sequence[Choice], *, usage: Usage, served: Served) -> msgspec.Struct:
        """The reply without streaming."""


class CompletionForm:
    """text_completion: reply and chunk are the same object."""

    def __init__(self, head: Head) -> None:
        self._head = head

    def opening(self, index: int) -> None:
        """See Form: nothing."""

    def piece(self, index: int, delta: Delta, *, offset: int) -> CompletionChoice:
        """See Form."""
        logprobs = completion_logprobs(delta.logprobs, offset=offset) if self._head.logprobs else None
        return CompletionChoice(index=index, text=delta.text, logprobs=logprobs)

    def ending(self, index: int, reason: str) -> CompletionChoice:
        """See Form."""
        return CompletionChoice(index=index, text="", finish_reason=reason)

    def chunk(
        self, choices: tuple[Any, ...], *, usage: Usage | UnsetType | None = UNSET, served: Served | UnsetType = UNSET
    ) -> Completion:
        """See Form."""
        head = self._head
        return Completion(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage, inlay=served)

    def whole(self, choices: Sequence[Choice], *, usage: Usage, served: Served) -> Completion:
        """See Form."""
        return self.chunk(tuple(self._choice(choice) for choice in choices), usage=usage, served=served)

    def _choice(self, choice: Choice) -> CompletionChoice:
        logprobs = completion_logprobs(choice.rows, offset=0) if self._head.logprobs else None
        return CompletionChoice(index=choice.index, text=choice.text, logprobs=logprobs, finish_reason=choice.finish_reason)


class ChatForm:
    """chat.completion, and chat.completion.chunk for streams: the role comes first."""

    def __init__(self, head: Head) -> None:
        self._head = head

    def opening(self, index: int) -> ChatChunkChoice:
        """See Form: the role."""
        return ChatChunkChoice(index=index, delta=ChatDelta(role="assistant", content=""))

    def piece(self, index: int, delta: Delta, *, offset: int) -> ChatChunkChoice:
        """See Form."""
        logprobs = chat_logprobs(delta.logprobs) if self._head.logprobs else None
        pieces = [(piece.index, piece.id, piece.name, piece.arguments) for piece in delta.calls]
        return ChatChunkChoice(index=index, delta=ChatDelta.of(delta.text, pieces), logprobs=logprobs)

    def ending(self, index: int, reason: str) -> ChatChunkChoice:
        """See Form."""
        return ChatChunkChoice(index=index, delta=ChatDelta(), finish_reason=reason)

    def chunk(
        self, choices: tuple[Any, ...], *, usage: Usage | UnsetType | None = UNSET, served: Served | UnsetType = UNSET
    ) -> ChatChunk:
        """See Form."""
        head = self._head
        return ChatChunk(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage, inlay=served)

    def whole(self, choices: Sequence[Choice], *, usage: Usage, served: Served) -> ChatCompletion:
        """See Form."""
        head = self._head
        made = tuple(self._choice(choice) for choice in choices)
        return ChatCompletion(id=head.id, created=head.created, model=head.model, choices=made, usage=usage, inlay=served)

    def _choice(self, choice: Choice) -> ChatChoice:
        logprobs = chat_logprobs(choice.rows) if self._head.logprobs else None
        answer = ChatAnswer.of(choice.text, choice.whole_calls())
        return ChatChoice(index=choice.index, message=answer, logprobs=logprobs, finish_reason=choice.finish_reason)
