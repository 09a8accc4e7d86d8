"""The client of our own engine, over its unix socket: many calls at once on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from inlay.client.connection import Answers, Connection, open_connection
from inlay.errors import RequestError
from inlay.specs.generation import (
    Cancel,
    ClientToEngine,
    Delta,
    Describe,
    Description,
    Detokenize,
    Failed,
    Finished,
    Generate,
    ReadMeters,
    Started,
    Text,
    Tokenize,
    Tokens,
)

Event = Started | Delta | Finished | Failed
_Reply = TypeVar("_Reply", Description, Tokens, Text)


class EngineClient:
    """Connects when first used, and again after a loss at the next call; belongs to one event loop.

    `path` is the engine's socket, `key` the deployment key (32 bytes). `answer_seconds` bounds connecting and the
    short calls, `silence_seconds` is how long the engine may say nothing while a generation is open. When the engine
    goes, every open generation ends with Failed (503, engine_lost) and every short call raises the same as RequestError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        key: bytes,
        name: str = "client",
        answer_seconds: float = 10.0,
        silence_seconds: float = 30.0,
    ) -> None:
        self._path = Path(path)
        self._key = key
        self._name = name
        self._answer_seconds = answer_seconds
        self._silence_seconds = silence_seconds
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hang up; open generations end with Failed."""
        if self._connection is not None:
            await self._connection.close("the client was closed")
            self._connection = None

    async def describe(self) -> Description:
        """What the engine serves. Raises RequestError (503) when it is lost."""
        return await self._ask(Describe(call=0), Description)

    async def tokenize(
        self, *, text: str | None = None, messages: tuple[dict[str, Any], ...] | None = None, add_special: bool = True
    ) -> tuple[int, ...]:
        """Ids of a text or of chat messages. Raises RequestError."""
        return (await self._ask(Tokenize(call=0, text=text, messages=messages, add_special=add_special), Tokens)).tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of ids. Raises RequestError."""
        return (await self._ask(Detokenize(call=0, tokens=tuple(tokens)), Text)).text

    async def meters(self) -> str:
        """The engine's Prometheus text. Raises RequestError."""
        return (await self._ask(ReadMeters(call=0), Text)).text

    async def ready(self) -> tuple[bool, str]:
        """Whether the engine can serve now, and if not, why."""
        try:
            found = await self.describe()
        except RequestError as error:
            return False, error.message
        return found.ready, found.reason

    async def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        """Started, Deltas, then one Finished or Failed; `request.call` is replaced.

        Closing the generator before its end tells the engine to stop.
        """
        try:
            connection = await self._connected()
        except RequestError as error:
            yield _failed(error)
            return
        call, answers = connection.begin()
        ended = False
        try:
            connection.send(msgspec.structs.replace(request, call=call))
            await connection.drain()
            while not ended:
                event = await answers.get()
                ended = isinstance(event, (Finished, Failed))
                if isinstance(event, (Started, Delta, Finished, Failed)):
                    yield event
        except RequestError as error:
            ended = True
            yield _failed(error)
        finally:
            connection.end(call)
            if not ended:
                connection.send(Cancel(call=call))

    async def _ask(self, message: ClientToEngine, kind: type[_Reply]) -> _Reply:
        connection = await self._connected()
        call, answers = connection.begin()
        try:
            connection.send(msgspec.structs.replace(message, call=call))
            return await self._answer(answers, kind)
        finally:
            connection.end(call)

    async def _answer(self, answers: Answers, kind: type[_Reply]) -> _Reply:
        try:
            async with asyncio.timeout(self._answer_seconds):
                answer = await answers.get()
        except TimeoutError:
            found = f"the engine has not answered within {self._answer_seconds:g} s"
            raise RequestError(found, code="engine_lost", status=503, hint="call again") from None
        if isinstance(answer, Failed):
            raise RequestError(answer.message, hint=answer.hint, param=answer.param, code=answer.code, status=answer.status)
        if not isinstance(answer, kind):
            found = f"the engine answered with {type(answer).__name__}, expected {kind.__name__}"
            raise RequestError(found, code="upstream_protocol", status=502)
        return answer

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is not None and not self._connection.is_open:
                await self._connection.close("replaced")
                self._connection = None
            if self._connection is None:
                self._connection = await open_connection(
                    self._path,
                    key=self._key,
                    name=self._name,
                    seconds=self._answer_seconds,
                    silence_seconds=self._silence_seconds,
                )
            return self._connection


def _failed(error: RequestError) -> Failed:
    return Failed(call=0, status=error.status, code=error.code, message=error.message, param=error.param, hint=error.hint)
