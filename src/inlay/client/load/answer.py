"""One streamed answer as it is read: when its pieces came, what the server counted, how it ended."""

from __future__ import annotations

from typing import Any

import msgspec

from inlay.client.load.events import DONE, ChunkUsage, EventSplitter, decode_chunk
from inlay.client.load.records import RequestRecord

BODY_LIMIT = 4096
"""How much of an answer that is no stream is kept, for its message."""


class StreamedAnswer:
    """A Sink. `error` is empty while nothing is wrong; kinds are listed with RequestRecord."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._body = b""
        self._is_stream = False
        self._counted = 0
        self.status = 0
        self.arrivals: list[float] = []
        self.tokens: list[int] = []
        self.usage: ChunkUsage | None = None
        self.finish_reason: str | None = None
        self.served: dict[str, Any] = {}
        self.done = False
        self.error = ""
        self.detail = ""

    def head(self, status: int, headers: dict[str, str], at: float) -> None:
        """Status and kind of the answer."""
        self.status = status
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._is_stream = status == 200 and kind == "text/event-stream"
        if status != 200:
            self.error = f"http_{status}"
        elif not self._is_stream:
            self.error = "not_a_stream"
            self.detail = f"content-type is {kind or 'missing'!r}, expected 'text/event-stream'"

    def data(self, data: bytes, at: float) -> None:
        """A piece of the body."""
        if not self._is_stream:
            self._body = (self._body + data)[:BODY_LIMIT]
            return
        for event in self._splitter.feed(data):
            self._take(event, at)

    def end(self) -> None:
        """The body is complete: judge it."""
        if self.error.startswith("http_"):
            self.detail = said(self._body)
        elif self.error == "not_a_stream":
            self.detail += f": {said(self._body)}"
        elif not self.error and not self.done and self.finish_reason is None:
            self.error, self.detail = "broken_stream", "the stream ended without a finish reason and without [DONE]"
        elif not self.error and not self.arrivals:
            self.error, self.detail = "no_tokens", "the answer holds no text"

    def record(self, *, index: int, planned: float | None, sent: float, finished: float, zero: float) -> RequestRecord:
        """What is kept of it. `sent` and `finished` are the clock's; `zero` is the clock at the start of the run."""
        usage = self.usage
        counted = usage is not None and usage.completion_tokens is not None
        return RequestRecord(
            index=index,
            planned=None if planned is None else round(planned, 6),
            sent=round(sent - zero, 6),
            seconds=round(finished - sent, 6),
            status=self.status,
            error=self.error,
            detail=self.detail,
            arrivals=tuple(round(at - sent, 6) for at in self.arrivals),
            chunk_tokens=tuple(self.tokens) if self._counted else (),
            prompt_tokens=(usage.prompt_tokens or 0) if usage is not None else 0,
            cached_tokens=usage.cached_tokens if usage is not None else 0,
            output_tokens=(usage.completion_tokens or 0) if usage is not None and counted else len(self.arrivals),
            counted_by="usage" if counted else "chunks",
            finish_reason=self.finish_reason or "",
            served=self.served,
        )

    def _take(self, event: bytes, at: float) -> None:
        if event == DONE:
            self.done = True
            return
        try:
            chunk = decode_chunk(event)
        except msgspec.MsgspecError as error:
            self.error = self.error or "not_a_chunk"
            self.detail = self.detail or f"an event is no chunk of OpenAI's: {error}: {event[:80]!r}"
            return
        if chunk.error:
            self.error, self.detail = "error_in_stream", said(event)
            return
        self.served = chunk.inlay or self.served
        has_output = False
        for choice in chunk.choices or ():
            has_output = has_output or choice.has_output
            self.finish_reason = choice.finish_reason or self.finish_reason
        new = self._count(chunk.usage)
        if has_output or (new and chunk.choices):
            self.arrivals.append(at)
            self.tokens.append(new)

    def _count(self, usage: ChunkUsage | None) -> int:
        """Tokens that a chunk adds by the server's running count; 0 for the last chunk, which only sums up."""
        if usage is None:
            return 0
        before = self.usage.completion_tokens if self.usage is not None else 0
        self.usage = usage
        new = (usage.completion_tokens or 0) - (before or 0)
        if before is None or (before == 0 and self.arrivals):  # no running count: this is the sum at the end
            return 0
        self._counted += new
        return max(0, new)


def said(body: bytes) -> str:
    """The message in an error body of OpenAI's shape, or the body itself, shortened to one line."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        value = None
    error = value.get("error", value) if isinstance(value, dict) else value
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else body.decode(errors="replace")
    return " ".join(text.split())[:300] or "(nothing)"
