"""One authenticated connection to the engine: calls by number out, answers sorted by number in."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec

from inlay.errors import RequestError, TransferError
from inlay.specs.generation import ClientToEngine, Describe, EngineToClient, Failed
from inlay.transport import HEADER_LIMIT, read_frame, shake_hands_async, write_frame

MESSAGE = 1
"""The frame kind of every message between a client and the engine; the header is the message, the payload empty."""

Answers = asyncio.Queue[EngineToClient]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(EngineToClient).decode


class Connection:
    """Made by `open_connection`. When it is lost every open call receives Failed (503, engine_lost), once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, silence_seconds: float) -> None:
        self._reader = reader
        self._writer = writer
        self._silence_seconds = silence_seconds
        self._calls: dict[int, Answers] = {}
        self._last_call = 0
        self._lost: str | None = None
        self._heard = asyncio.get_running_loop().time()
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._watch()))

    @property
    def is_open(self) -> bool:
        """Whether new calls may begin."""
        return self._lost is None

    def begin(self) -> tuple[int, Answers]:
        """A fresh call number and the queue of its answers; give it back with `end`."""
        self._last_call += 1
        answers: Answers = asyncio.Queue()
        self._calls[self._last_call] = answers
        if self._lost is not None:
            answers.put_nowait(lost(self._last_call, self._lost))
        return self._last_call, answers

    def end(self, call: int) -> None:
        """Forget a call; answers that still come for it are dropped."""
        self._calls.pop(call, None)

    def send(self, message: ClientToEngine) -> None:
        """Queue one message. A lost connection takes it silently: its call has been told. Raises RequestError if too big."""
        header = _encode(message)
        if len(header) > HEADER_LIMIT:
            found = f"the request has {len(header)} bytes, expected at most {HEADER_LIMIT}"
            raise RequestError(found, code="request_too_large", status=413)
        if self._lost is None:
            write_frame(self._writer, MESSAGE, header)

    async def drain(self) -> None:
        """Wait until the engine takes more."""
        try:
            await self._writer.drain()
        except OSError as error:
            self._lose(str(error))

    async def close(self, reason: str) -> None:
        """End it; open calls are told `reason`."""
        self._lose(reason)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        reason = "the client stopped reading"
        try:
            while True:
                frame = await read_frame(self._reader)
                self._heard = asyncio.get_running_loop().time()
                if frame.kind == MESSAGE:
                    message = _decode(frame.header)
                    answers = self._calls.get(message.call)
                    if answers is not None:
                        answers.put_nowait(message)
        except TransferError as error:
            reason = error.message
        except msgspec.MsgspecError as error:
            reason = f"the engine sent what is no message: {error}"
        finally:
            self._lose(reason)

    async def _watch(self) -> None:
        """An engine that says nothing while calls are open is asked something; still nothing, and it counts as lost."""
        step = self._silence_seconds / 4
        while self._lost is None:
            await asyncio.sleep(step)
            silent = asyncio.get_running_loop().time() - self._heard
            if not self._calls:
                self._heard = asyncio.get_running_loop().time()
            elif silent >= self._silence_seconds:
                self._lose(f"it has been silent for {silent:.1f} s")
            elif silent >= self._silence_seconds / 2:
                self.send(Describe(call=0))

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            self._writer.close()
            for call, answers in self._calls.items():
                answers.put_nowait(lost(call, reason))


def lost(call: int, reason: str) -> Failed:
    """What every open call is told when the engine has gone."""
    return Failed(call=call, status=503, code="engine_lost", message=f"the engine is lost: {reason}", hint="call again")


async def open_connection(path: Path, *, key: bytes, name: str, seconds: float, silence_seconds: float) -> Connection:
    """Connect to the engine's unix socket and prove the deployment key, within `seconds`.

    Raises RequestError (503, engine_lost) when there is no engine or it has another key.
    """
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(path))
            await shake_hands_async(reader, writer, key=key, name=name, connects=True, seconds=seconds)
    except TimeoutError:
        raise _unreachable(path, f"no answer within {seconds:g} s") from None
    except OSError as error:
        raise _unreachable(path, error.strerror or str(error)) from error
    except TransferError as error:
        raise _unreachable(path, error.message) from error
    return Connection(reader, writer, silence_seconds=silence_seconds)


def _unreachable(path: Path, reason: str) -> RequestError:
    found = f"the engine at {path} cannot be reached: {reason}"
    return RequestError(found, code="engine_lost", status=503, hint="is `inlay serve` running?")
