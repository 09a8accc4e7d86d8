"""A run: the server is tried once, then each load in turn is sent and measured. No printing, no files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from inlay.client.load.exchange import Clock
from inlay.client.load.figures import summarize
from inlay.client.load.loops import Loop, Sleep
from inlay.client.load.preparing import prepare
from inlay.client.load.records import Level, Load, RequestRecord, ServerDelta
from inlay.client.load.search import next_rate, sustained
from inlay.client.load.server_meters import delta, read_counts
from inlay.client.load.target import Target
from inlay.client.load.workload import Asker, Workload

Progress = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The loads in order; each ends after `requests`, or begins none after `seconds`, whichever is set; `warmup` requests
    go before each and count nowhere. `budgets` are seconds by name. With `attain` levels of an open loop follow, of rates
    that close in on the highest at which this share of the requests keeps the budgets; their gaps are `arrivals`."""

    loads: tuple[Load, ...] = ()
    requests: int | None = None
    seconds: float | None = None
    warmup: int = 1
    budgets: dict[str, float] = {}
    attain: float | None = None
    arrivals: str = "poisson"

    def count(self, load: Load) -> int | None:
        """How many requests a level has at most: by default 20, or 5 a stream or 10 seconds' worth; recorded ones whole."""
        if self.requests is not None or self.seconds is not None or load.kind in ("replay", "sessions"):
            return self.requests
        return max(20, round((5 if load.kind == "closed" else 10) * load.value))


@dataclass
class Underway:
    """The level that runs now."""

    load: Load
    zero: float
    cpu: float
    records: list[RequestRecord] = field(default_factory=list)


class Bench:
    """Call `run` once; `levels` holds what has been measured, also when `run` was cancelled: then the level that ran is
    there as far as it went. The clock, the wait and the processor clock are arguments."""

    def __init__(
        self,
        target: Target,
        workload: Workload,
        plan: Plan,
        *,
        model: str | None = None,
        progress: Progress = lambda text: None,
        clock: Clock = time.perf_counter,
        sleep: Sleep = asyncio.sleep,
        cpu_clock: Clock = time.process_time,
    ) -> None:
        workload.check()
        self._target = target
        self._workload = workload
        self._plan = plan
        self._tell = progress
        self._clock = clock
        self._sleep = sleep
        self._cpu_clock = cpu_clock
        self._underway: Underway | None = None
        self.model = model or ""
        self.server: Any = None
        self.levels: list[Level] = []
        self.notes: list[str] = []

    async def run(self) -> None:
        """Everything. Raises RequestError when the server cannot be used at all, InputError for prompts or a trace."""
        try:
            self._tell("asking what is served")
            prepared = await prepare(self._target, self._workload, loads=self._plan.loads, model=self.model or None)
            self.model, self.server, asker = prepared.model, prepared.server, prepared.asker
            self.notes += filter(None, [prepared.note])
            for load in self._plan.loads:
                await self._level(asker, load)
            if self._plan.attain is not None:
                await self._search(asker, self._plan.attain)
        finally:
            if self._underway is not None and self._underway.records:
                self.levels.append(self._close_level(self._underway, ServerDelta(), interrupted=True))
            self._target.close()

    async def _level(self, asker: Asker, load: Load) -> None:
        self._tell(f"{load}: warming up")
        await self._warm(asker, load)
        before = read_counts(await self._target.metrics())
        underway = Underway(load=load, zero=self._clock(), cpu=self._cpu_clock())
        self._underway = underway
        await Loop(
            asker=asker,
            load=load,
            count=self._plan.count(load),
            seconds=self._plan.seconds,
            zero=underway.zero,
            clock=self._clock,
            sleep=self._sleep,
            send=partial(self._one, asker.path, underway),
        ).run()
        self._underway = None
        level = self._close_level(underway, ServerDelta())
        counted = delta(before, read_counts(await self._target.metrics()))
        self.levels.append(msgspec.structs.replace(level, server=counted))
        if asker.clipped:
            most = asker.workload.most_tokens
            self.notes.append(f"{load}: {asker.clipped} requests of the trace were cut to {most} tokens, prompt and answer")
            asker.clipped = 0
        if asker.written and len(underway.records) > len(asker.written):
            self.notes.append(f"{load}: the file's {len(asker.written)} prompts were sent more than once")

    async def _search(self, asker: Asker, share: float) -> None:
        tried: list[tuple[float, float]] = []
        while (rate := next_rate(tried, share=share)) is not None:
            await self._level(asker, Load(kind="open", value=round(rate, 3), arrivals=self._plan.arrivals))
            tried.append((rate, self.levels[-1].summary.goodput_share or 0.0))
        found = sustained(tried, share=share)
        kept, where = f"{share:.0%} of the requests kept the budgets", "at no rate that was tried"
        if found is not None:
            where = f"at up to {found:.3g} requests/s, of the rates tried,"
        self.notes.append(f"{where} {kept}")

    async def _warm(self, asker: Asker, load: Load) -> None:
        streams = min(self._plan.warmup, int(load.value) if load.kind in ("closed", "sessions") else 1)
        numbers = iter(range(self._plan.warmup))

        async def worker() -> None:
            for number in numbers:
                await self._target.stream(asker.path, asker.body(asker.ask(f"{load}/warm", number)))

        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(worker())

    async def _one(
        self,
        path: str,
        underway: Underway,
        body: bytes,
        *,
        number: int,
        planned: float | None = None,
        session: int | None = None,
    ) -> bool:
        """One request and its record; whether it succeeded."""
        sent = self._clock()
        answer = await self._target.stream(path, body)
        finished = self._clock()
        record = answer.record(index=number, planned=planned, sent=sent, finished=finished, zero=underway.zero)
        underway.records.append(record if session is None else msgspec.structs.replace(record, session=session))
        count = self._plan.count(underway.load)
        if count is not None:
            self._tell(f"{underway.load}: {len(underway.records)} of {count}")
        elif self._plan.seconds is not None:
            done = min(self._plan.seconds, finished - underway.zero)
            self._tell(f"{underway.load}: {done:.0f} of {self._plan.seconds:.0f}")
        return not record.error

    def _close_level(self, underway: Underway, counted: ServerDelta, *, interrupted: bool = False) -> Level:
        records = tuple(sorted(underway.records, key=lambda record: record.index))
        elapsed = self._clock() - underway.zero
        cpu = (self._cpu_clock() - underway.cpu) / elapsed if elapsed > 0 else None
        summary = summarize(records, budgets=self._plan.budgets, client_cpu=cpu)
        return Level(load=underway.load, summary=summary, server=counted, requests=records, interrupted=interrupted)
