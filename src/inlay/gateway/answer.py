"""Writes the answer to one generation call, whole or as a stream, for as long as the client is there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
from starlette.types import Message, Receive, Scope, Send

from inlay.errors import RequestError
from inlay.gateway.calls import Calls
from inlay.gateway.chunks import Chunks
from inlay.gateway.forms import Form
from inlay.gateway.presence import ClientGoneError, while_connected
from inlay.gateway.tally import Tally, refused
from inlay.gateway.upstream import Upstream
from inlay.specs.generation import Generate
from inlay.telemetry import GatewayMeters
from inlay.wire import ErrorReply

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How an answer is to be given."""

    stream: bool
    includes_usage: bool
    counts_continuously: bool
    ignored: tuple[str, ...]
    ping_seconds: float


class Answer:
    """An ASGI response. A RequestError leaves it only while nothing has been sent: then it still has a status line."""

    def __init__(
        self, upstream: Upstream, calls: tuple[Generate, ...], *, form: Form, manner: Manner, meters: GatewayMeters
    ) -> None:
        self._upstream = upstream
        self._calls = calls
        self._form = form
        self._manner = manner
        self._meters = meters
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = self._stream(send) if self._manner.stream else self._whole(send)
        try:
            await while_connected(receive, work)
        except ClientGoneError:
            self._meters.disconnects.inc()
        except asyncio.CancelledError:  # the server stops and has waited long enough
            error = RequestError("the server is stopping", code="stopping", status=503, hint="call again")
            if not self._begun:
                raise error from None
            await send(_body(_event(ErrorReply.of(error)), more=False))

    async def _whole(self, send: Send) -> None:
        tally = self._tally(keeps_text=True)
        async with Calls(self._upstream, self._calls) as calls:
            while not calls.ended:
                for position, event in await calls.next(seconds=None):
                    tally.add(position, event)
        body = _encode(self._form.whole(tally.choices, usage=tally.usage(), served=tally.served_all()))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self._begin(send, headers)
        await send(_body(body, more=False))

    async def _stream(self, send: Send) -> None:
        tally = self._tally(keeps_text=False)
        manner = self._manner
        chunks = Chunks(self._form, tally, includes_usage=manner.includes_usage, counts_continuously=manner.counts_continuously)
        async with Calls(self._upstream, self._calls) as calls:
            batch = await calls.next(seconds=manner.ping_seconds)
            error = refused(batch)
            if error is not None:
                raise error
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
            await self._begin(send, [*headers, (b"x-accel-buffering", b"no")])
            ready = b"" if batch else PING
            while True:
                try:
                    for position, event in batch:
                        ready += b"".join(map(_event, chunks.add(position, event)))
                except RequestError as late:
                    await send(_body(ready + _event(ErrorReply.of(late)), more=False))
                    return
                if calls.ended:
                    break
                if ready:
                    await send(_body(ready, more=True))
                batch = await calls.next(seconds=manner.ping_seconds)
                ready = b"" if batch else PING
        await send(_body(ready + b"".join(map(_event, chunks.last())) + DONE, more=False))

    async def _begin(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._begun = True
        if self._manner.ignored:
            headers.append((b"x-inlay-ignored", ", ".join(self._manner.ignored).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    def _tally(self, *, keeps_text: bool) -> Tally:
        choices = self._calls[0].parameters.n
        return Tally(prompts=len(self._calls), choices=choices, keeps_text=keeps_text)


def _event(value: msgspec.Struct) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


def _body(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
