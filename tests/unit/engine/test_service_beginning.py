"""Calls that take long to begin hold nobody up, can be cancelled meanwhile, and end the connection when they fail oddly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from inlay.client import EngineClient
from inlay.engine.loop import EngineLoop
from inlay.engine.service import Served, Service
from inlay.models import read_model, read_tokenizer
from inlay.scheduler import new_state
from inlay.specs.generation import Constraint, Failed, Generate, GenerationParameters
from inlay.specs.schedule import SchedulerSetup

FOLDER = Path(__file__).parents[3] / "demo" / "target"
KEY = bytes(range(32))
SLOW = Generate(call=0, text="x", parameters=GenerationParameters(constraint=Constraint(kind="json_object")))


def with_service(path: Path, work: Callable[[Service, EngineLoop, EngineClient], Awaitable[None]]) -> None:
    """A service without any runner, and a client of it."""

    async def run() -> None:
        loop = EngineLoop(new_state(SchedulerSetup(facts=(), context=64)), send=lambda *_: None)
        service = Service(
            loop,
            spec=read_model(FOLDER),
            tokenizer=read_tokenizer(FOLDER),
            chat=None,
            served=Served(name="m", context=64, created=1, facts=(), places={}, pids={}),
            links={},
            meters=lambda: "",
            key=KEY,
        )
        server = await asyncio.start_unix_server(service.connection, str(path / "s"))
        async with EngineClient(path / "s", key=KEY, answer_seconds=5.0, silence_seconds=5.0) as client:
            await asyncio.wait_for(work(service, loop, client), 20)
        server.close()

    asyncio.run(run())


def compiles(service: Service, work: Callable[[Any], Any]) -> None:
    service._grammars.compile = work  # type: ignore[method-assign]


def test_other_calls_are_answered_while_a_grammar_compiles(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        begun.set()
        assert go_on.wait(10)

    async def work(service: Service, loop: EngineLoop, client: EngineClient) -> None:
        compiles(service, slow)
        events = client.generate(SLOW)
        first = asyncio.create_task(anext(events))
        assert await asyncio.to_thread(begun.wait, 10)
        assert await client.tokenize(text="import os")
        assert not first.done()
        go_on.set()
        failed = await first  # there is no runner to run it on
        assert isinstance(failed, Failed) and failed.code != "engine_lost"

    with_service(tmp_path, work)


def test_a_call_that_is_cancelled_before_it_begins_never_does(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    arrived: list[object] = []

    def slow(_: object) -> None:
        begun.set()
        assert go_on.wait(10)

    async def work(service: Service, loop: EngineLoop, client: EngineClient) -> None:
        compiles(service, slow)
        loop.observers.append(lambda event, commands, now: arrived.append(event))
        events = client.generate(SLOW)
        first = asyncio.create_task(anext(events))
        assert await asyncio.to_thread(begun.wait, 10)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await events.aclose()
        assert await client.tokenize(text="import os")  # the engine has read what came before this
        go_on.set()
        assert await client.tokenize(text="import os")
        await asyncio.sleep(0)
        assert arrived == []

    with_service(tmp_path, work)


def test_a_fault_of_ours_ends_the_call_at_once(tmp_path: Path) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("planted")

    async def work(service: Service, loop: EngineLoop, client: EngineClient) -> None:
        compiles(service, broken)
        failed = await anext(client.generate(SLOW))
        assert isinstance(failed, Failed) and (failed.status, failed.code) == (503, "engine_lost")
        compiles(service, lambda _: None)
        assert await client.tokenize(text="import os")

    with_service(tmp_path, work)
