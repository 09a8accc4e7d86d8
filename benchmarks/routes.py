"""Who races in disaggregation.py: engines over the same two devices, and rules by which requests are sent to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from traffic import Asked

from inlay import api
from inlay.client import EngineClient
from inlay.client.load import RequestRecord
from inlay.orchestrator import Running
from inlay.specs.generation import Delta, Failed, Finished, Generate, GenerationParameters, Placement, Started

SILENCE_SECONDS = 300.0
PLACES = ("cpu:0/openvino", "cpu:1/onnxruntime")
SLOTS = 16
CHUNK = 128
"""The default of a deployment."""
SMALL_CHUNK = 32
SPLIT, MIXED, CHOSEN = "split", "mixed", "chosen"


@dataclass(frozen=True, slots=True)
class Setting:
    """What an engine is started with: roles and the widest chunk of a prompt."""

    name: str
    roles: tuple[str, ...]
    chunk: int = CHUNK


@dataclass(frozen=True, slots=True)
class Route:
    """A contestant: a rule, and the engine it asks. Split: the engine has one place for each phase. Mixed: each request runs
    whole at the place with the fewest open ones. Chosen: all is left to the scheduler."""

    name: str
    rule: str
    setting: Setting


def routes() -> list[Route]:
    """Both splits, mixed batching with two chunks, and the choice."""
    one, two = PLACES
    both = tuple(f"prefill,decode={place}" for place in PLACES)
    default, small = Setting("both", both), Setting("both, small chunks", both, SMALL_CHUNK)
    splits = [
        Route(f"split {_framework(first)} → {_framework(second)}", SPLIT, Setting(f"{first} → {second}", roles))
        for first, second in ((one, two), (two, one))
        for roles in [(f"prefill={first}", f"decode={second}")]
    ]
    return [
        *splits,
        Route(f"mixed, chunk {CHUNK}", MIXED, default),
        Route(f"mixed, chunk {SMALL_CHUNK}", MIXED, small),
        Route(f"chosen, chunk {CHUNK}", CHOSEN, default),
    ]


class Engine:
    """One engine with its devices, up until it is closed. `open` counts the requests under way by place."""

    def __init__(self, running: Running, setting: Setting) -> None:
        self.setting, self._running = setting, running
        self.open = dict.fromkeys(PLACES, 0)
        self._client = EngineClient(running.engine_socket, key=running.key, name="bench", silence_seconds=SILENCE_SECONDS)

    @classmethod
    def start(cls, model: Path, setting: Setting, *, context: int, event_log: Path) -> Engine:
        """Devices of a core each."""
        wanted = api.deployment(model, roles=setting.roles, context=context, slots=SLOTS, chunk=setting.chunk)
        return cls(api.start(wanted, event_log=event_log), setting)

    def processes(self) -> list[int]:
        """Ids of its processes."""
        return [worker.pid for worker in self._running.workers.values()]

    async def close(self) -> None:
        """End them."""
        await self._client.aclose()
        await asyncio.to_thread(self._running.stop)

    async def ask(self, asked: Asked, placement: Placement, *, index: int, tenant: str, zero: float) -> RequestRecord:
        """One request and its record; raises RuntimeError where it fails or is cut short."""
        parameters = GenerationParameters(max_tokens=asked.answer, temperature=0.0, ignore_eos=True, speculation="off")
        wanted = Generate(call=0, tokens=asked.prompt, parameters=parameters, placement=placement, tenant=tenant)
        found = Heard()
        sent = time.perf_counter()
        async for event in self._client.generate(wanted):
            found.hear(event, time.perf_counter() - sent)
        if found.tokens != asked.answer:
            raise RuntimeError(f"{self.setting.name} gave {found.tokens} tokens, expected {asked.answer}: {found.failure}")
        return RequestRecord(
            index=index,
            sent=sent - zero,
            seconds=time.perf_counter() - sent,
            planned=asked.at,
            arrivals=tuple(found.arrivals),
            prompt_tokens=len(asked.prompt),
            cached_tokens=found.cached,
            output_tokens=found.tokens,
            served=dict(found.places),
        )


@dataclass(slots=True)
class Heard:
    """What came back of one request so far."""

    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    cached: int = 0
    places: dict[str, str] = field(default_factory=dict)
    failure: str = ""

    def hear(self, event: Started | Delta | Finished | Failed, at: float) -> None:
        """Take one event in, `at` seconds after sending."""
        match event:
            case Started(prefill=prefill, decode=decode):
                self.places = {"prefill": prefill, "decode": decode}
            case Delta(tokens=tokens) if tokens:
                self.arrivals.append(at)
                self.tokens += len(tokens)
            case Finished(cached_tokens=cached):
                self.cached = cached
            case Failed(code=code, message=message):
                self.failure = f"{code}: {message}"
            case _:
                pass


async def take_turn(engine: Engine, rule: str, requests: Sequence[Asked], *, tenant: str) -> list[RequestRecord]:
    """Every request at its time, however many are still open; ends with the last answer. Tenants share no kept prefix."""
    zero = time.perf_counter()

    async def one(index: int, asked: Asked) -> RequestRecord:
        place = min(PLACES, key=lambda name: engine.open[name]) if rule == MIXED else None
        placement = Placement(prefill=place, decode=place)
        if place is not None:
            engine.open[place] += 1
        try:
            return await engine.ask(asked, placement, index=index, tenant=tenant, zero=zero)
        finally:
            if place is not None:
                engine.open[place] -= 1

    async with asyncio.TaskGroup() as group:
        tasks = []
        for index, asked in enumerate(requests):
            wait = zero + asked.at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(group.create_task(one(index, asked)))
    return [task.result() for task in tasks]


def _framework(place: str) -> str:
    return place.partition("/")[2]
