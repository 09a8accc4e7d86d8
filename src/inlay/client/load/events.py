"""Server-sent events and the few fields of OpenAI's chunks that a measurement needs."""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"[DONE]"


class EventSplitter:
    """Bytes as they come in, whole events' data out; comments and other fields than `data` are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that `piece` completes."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        return events


class Cached(msgspec.Struct, frozen=True):
    """Prompt tokens that came from a prefix cache."""

    cached_tokens: int | None = None


class ChunkUsage(msgspec.Struct, frozen=True):
    """The server's own counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Cached | None = None

    @property
    def cached_tokens(self) -> int:
        """0 when the server does not say."""
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details is not None else 0


class ChunkDelta(msgspec.Struct, frozen=True):
    """What a chat chunk adds; all of these are made of generated tokens."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """A piece of one choice, in the form of completions or of chat."""

    text: str | None = None
    delta: ChunkDelta | None = None
    finish_reason: str | None = None

    @property
    def has_output(self) -> bool:
        """Whether generated text, or a part of a tool call, is in it."""
        if self.text:
            return True
        delta = self.delta
        return delta is not None and bool(
            delta.content or delta.reasoning or delta.reasoning_content or delta.refusal or delta.tool_calls
        )


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream; `inlay` is our own servers' word on where it ran."""

    choices: list[ChunkChoice] | None = None
    usage: ChunkUsage | None = None
    error: Any = None
    inlay: dict[str, Any] | None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
"""A Chunk from an event's data; raises msgspec.MsgspecError."""
