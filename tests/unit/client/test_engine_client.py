"""EngineClient against a small engine that speaks the protocol over a real unix socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

import inlay.client
from inlay.client import EngineClient
from inlay.errors import RequestError, TransferError
from inlay.gateway import Event, Upstream
from inlay.specs.generation import (
    Cancel,
    ClientToEngine,
    Delta,
    Describe,
    Description,
    Detokenize,
    EngineToClient,
    Failed,
    Finished,
    Generate,
    ReadMeters,
    Started,
    Text,
    Tokenize,
    Tokens,
)
from inlay.transport import HEADER_LIMIT, create_key, read_frame, shake_hands_async, write_frame

KEY = create_key()


class SmallEngine:
    """Answers what it is asked; how it generates depends on the text. Keeps the cancels and open connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cancelled: list[int] = []
        self.seen: list[ClientToEngine] = []
        self.connections = 0
        self.peers: list[str] = []
        self.mute = False
        self.writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def kill(self) -> None:
        """As a crash does it: every connection ends at once."""
        if self._server is not None:
            self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(TransferError, OSError):
            peer = await shake_hands_async(reader, writer, key=KEY, name="engine", connects=False)
            self.connections += 1
            self.peers.append(peer.name)
            while True:
                frame = await read_frame(reader)
                message = msgspec.msgpack.decode(frame.header, type=ClientToEngine)
                self.seen.append(message)
                if isinstance(message, Cancel):
                    self.cancelled.append(message.call)
                elif not self.mute:
                    task = asyncio.create_task(self._answer(writer, message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, message: ClientToEngine) -> None:
        def send(answer: EngineToClient) -> None:
            write_frame(writer, 1, msgspec.msgpack.encode(answer))

        call = message.call
        if isinstance(message, Describe):
            send(Description(call=call, model="m", context=8, created=1, ready=True, reason="", runners=()))
        elif isinstance(message, Tokenize):
            if message.text == "bad":
                send(Failed(call=call, status=400, code="bad", message="cannot", param="prompt", hint="try"))
            else:
                send(Tokens(call=call, tokens=tuple((message.text or str(message.messages)).encode())))
        elif isinstance(message, Detokenize):
            send(Text(call=call, text=bytes(message.tokens).decode()))
        elif isinstance(message, ReadMeters):
            send(Text(call=call, text="meters\n"))
        elif isinstance(message, Generate):
            await self._generate(send, message)

    async def _generate(self, send: Callable[[EngineToClient], None], message: Generate) -> None:
        call = message.call
        send(Started(call=call, prompt_tokens=1, prefill="a", decode="b"))
        if message.text == "garbage":
            write_frame(self.writers[-1], 1, b"\xc1")
            return
        for i in range(3):
            send(Delta(call=call, index=0, text=f"{message.text}{i}", tokens=(i,)))
            await asyncio.sleep(0.005)
        if message.text == "hang":
            return
        send(Finished(call=call, prompt_tokens=1, completion_tokens=3, timing={"ttft": 0.1}))
        send(Delta(call=call, index=0, text="late"))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "engine.socket"


def play(path: Path, scene: Callable[[SmallEngine, EngineClient], Awaitable[None]], **options: Any) -> None:
    """Run one scene with an engine and a client of it."""

    @asynccontextmanager
    async def engine() -> AsyncIterator[SmallEngine]:
        made = SmallEngine(path)
        await made.start()
        try:
            yield made
        finally:
            await made.kill()

    async def main() -> None:
        async with asyncio.timeout(20), engine() as small, EngineClient(path, key=options.pop("key", KEY), **options) as client:
            await scene(small, client)

    asyncio.run(main())


async def collect(client: EngineClient, text: str) -> list[Event]:
    return [event async for event in client.generate(Generate(call=99, text=text))]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.005)


def test_the_face_is_sorted() -> None:
    assert sorted(inlay.client.__all__) == inlay.client.__all__


def test_it_fits_the_gateways_seam(path: Path) -> None:
    upstream: Upstream = EngineClient(path, key=KEY)
    for name in ("describe", "generate", "tokenize", "detokenize", "ready", "meters"):
        assert callable(getattr(upstream, name))


def test_short_calls_are_answered(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        assert (await client.describe()).model == "m"
        assert await client.tokenize(text="ab") == (97, 98)
        assert await client.tokenize(messages=({"role": "user"},)) == tuple(b"({'role': 'user'},)")
        assert await client.detokenize([97, 98]) == "ab"
        assert await client.meters() == "meters\n"
        assert await client.ready() == (True, "")
        assert engine.connections == 1 and engine.peers == ["client"]

    play(path, scene)


def test_a_refusal_is_a_request_error_with_all_its_parts(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        with pytest.raises(RequestError) as caught:
            await client.tokenize(text="bad")
        error = caught.value
        assert (error.status, error.code, error.message, error.param, error.hint) == (400, "bad", "cannot", "prompt", "try")

    play(path, scene)


def test_calls_at_once_share_one_connection_and_never_mix(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        names = [f"call{i}-" for i in range(40)]
        answers = await asyncio.gather(*(collect(client, name) for name in names))
        for name, events in zip(names, answers, strict=True):
            assert isinstance(events[0], Started)
            texts = [event.text for event in events if isinstance(event, Delta)]
            assert texts == [f"{name}{i}" for i in range(3)]
            assert isinstance(events[-1], Finished) and events[-1].timing == {"ttft": 0.1}
        assert engine.connections == 1
        assert engine.cancelled == []
        assert len({message.call for message in engine.seen}) == 40

    play(path, scene)


def test_closing_the_generator_cancels_the_call(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        events = client.generate(Generate(call=0, text="hang"))
        assert isinstance(await anext(events), Started)
        await events.aclose()
        await until(lambda: engine.cancelled == [engine.seen[0].call])
        assert len(await collect(client, "x")) == 5

    play(path, scene)


def test_cancelling_the_task_that_waits_cancels_the_call(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        task = asyncio.create_task(collect(client, "hang"))
        await until(lambda: len(engine.seen) == 1)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: engine.cancelled == [engine.seen[0].call])

    play(path, scene)


def test_every_open_call_fails_once_when_the_engine_goes(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        tasks = [asyncio.create_task(collect(client, "hang")) for _ in range(5)]
        await until(lambda: len(engine.seen) == 5)
        await asyncio.sleep(0.05)
        await engine.kill()
        for events in await asyncio.gather(*tasks):
            assert len([event for event in events if isinstance(event, Failed)]) == 1
            last = events[-1]
            assert isinstance(last, Failed) and (last.status, last.code) == (503, "engine_lost")
        ready, reason = await client.ready()
        assert not ready and str(path) in reason
        [only] = await collect(client, "x")
        assert isinstance(only, Failed) and only.code == "engine_lost"
        with pytest.raises(RequestError) as caught:
            await client.describe()
        assert caught.value.status == 503

    play(path, scene)


def test_it_connects_again_when_the_engine_is_back(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        assert len(await collect(client, "x")) == 5
        await engine.kill()
        await until(lambda: not path.exists())
        assert not (await client.ready())[0]
        await engine.start()
        assert await client.ready() == (True, "")
        assert len(await collect(client, "x")) == 5
        assert engine.connections == 2

    play(path, scene)


def test_another_key_is_refused_by_both_ends(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        ready, reason = await client.ready()
        assert not ready and "key" in reason
        assert engine.connections == 0

    play(path, scene, key=create_key())


def test_an_engine_that_sends_garbage_is_lost(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        last = (await collect(client, "garbage"))[-1]
        assert isinstance(last, Failed) and last.code == "engine_lost" and "no message" in last.message

    play(path, scene)


def test_an_engine_that_does_not_answer_is_given_up_in_time(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        await client.describe()
        engine.mute = True
        began = time.monotonic()
        ready, reason = await client.ready()
        assert not ready and "0.2 s" in reason
        assert time.monotonic() - began < 2

    play(path, scene, answer_seconds=0.2)


def test_a_frozen_engine_is_lost_but_a_slow_one_is_not(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        slow = asyncio.create_task(collect(client, "hang"))
        await asyncio.sleep(1.0)
        assert not slow.done(), "it answers Describe, so it lives"
        assert any(isinstance(message, Describe) for message in engine.seen)
        engine.mute = True
        last = (await asyncio.wait_for(slow, 3))[-1]
        assert isinstance(last, Failed) and last.code == "engine_lost" and "silent" in last.message

    play(path, scene, silence_seconds=0.4)


def test_a_request_beyond_the_frame_is_refused_and_the_connection_lives(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        [only] = await collect(client, "x" * HEADER_LIMIT)
        assert isinstance(only, Failed) and (only.status, only.code) == (413, "request_too_large")
        assert len(await collect(client, "x")) == 5
        assert engine.connections == 1 and engine.cancelled == []

    play(path, scene)


def test_closing_the_client_ends_its_calls(path: Path) -> None:
    async def scene(engine: SmallEngine, client: EngineClient) -> None:
        task = asyncio.create_task(collect(client, "hang"))
        await until(lambda: len(engine.seen) == 1)
        await client.aclose()
        last = (await task)[-1]
        assert isinstance(last, Failed) and last.code == "engine_lost"

    play(path, scene)
