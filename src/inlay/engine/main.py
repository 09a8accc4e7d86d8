"""The engine process: connects to its devices, runs the scheduler, serves clients on a unix socket.

Started by the orchestrator with a configuration; ends on SIGTERM. Holds no weights and loads no framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec

from inlay.engine.answers import Answers
from inlay.engine.calibration import measure_tables
from inlay.engine.journal import write_start
from inlay.engine.links import DeviceLink
from inlay.engine.loop import EngineLoop
from inlay.engine.metering import Label, Metering
from inlay.engine.replica import Region, Replicas, join_facts
from inlay.engine.service import Served, Service, now_unix
from inlay.models import ChatEncoder, read_model, read_template, read_tokenizer, tokenizer_facts
from inlay.scheduler import new_state
from inlay.specs.schedule import SchedulerSetup, Tick
from inlay.specs.speculation import SpeculationSetup
from inlay.telemetry import EngineMeters

TICK_SECONDS = 1.0
log = logging.getLogger("inlay.engine")


class ProcessConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One device process as the orchestrator started it."""

    place: str
    socket: str
    pid: int


class RunnerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: its processes in the order of their layers, and what it does."""

    runner: str
    roles: tuple[str, ...]
    processes: tuple[ProcessConfig, ...]


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is started with. Times are seconds; `silence` is how long a device may say nothing."""

    model: str
    name: str
    key: bytes
    socket: str
    runners: tuple[RunnerConfig, ...]
    context: int
    chunk: int
    waiting_limit: int = 1024
    load_seconds: float = 600.0
    lease: float = 10.0
    silence: float = 60.0
    event_log: str | None = None
    salt: str = ""
    speculation: SpeculationSetup = SpeculationSetup()
    measure: bool = True


def main(config: dict[str, Any]) -> None:
    """The program of the engine process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(_serve(msgspec.convert(config, EngineConfig)))


async def _serve(config: EngineConfig) -> None:
    spec = read_model(config.model)
    tokenizer = read_tokenizer(config.model)
    template = read_template(config.model)
    chat = None if template is None else ChatEncoder(tokenizer, template)
    links = {
        item.place: DeviceLink(item.place, socket=item.socket, key=config.key, silence=config.silence)
        for runner in config.runners
        for item in runner.processes
    }
    ready = dict(
        zip(links, await asyncio.gather(*(link.open(seconds=config.load_seconds) for link in links.values())), strict=True)
    )
    places = {runner.runner: [item.place for item in runner.processes] for runner in config.runners}
    facts = tuple(
        join_facts(item.runner, [ready[place] for place in places[item.runner]], roles=item.roles, chunk=config.chunk)
        for item in config.runners
    )
    replicas = Replicas({runner: [Region.of(ready[place]) for place in items] for runner, items in places.items()})
    answers = Answers(links, replicas)
    readers = [
        asyncio.create_task(link.read(partial(answers.heard, place), partial(answers.lost, place)))
        for place, link in links.items()
    ]
    if config.measure:
        tables = await measure_tables(facts, answers)
        facts = tuple(msgspec.structs.replace(item, table=tables.get(item.runner)) for item in facts)
    meters = EngineMeters()
    labels = {runner: Label.of([ready[place] for place in items]) for runner, items in places.items()}
    for item in ready.values():
        meters.worker_epoch.labels(Label.of([item]).device).set(item.epoch)
    with contextlib.ExitStack() as stack:
        setup = SchedulerSetup(
            facts=facts,
            context=config.context,
            waiting_limit=config.waiting_limit,
            lease=config.lease,
            salt=config.salt,
            speculation=config.speculation,
        )
        event_log = _open_log(config, setup, stack)
        state = new_state(setup)
        loop = EngineLoop(state, send=answers.send, wake=partial(_wake, asyncio.get_running_loop()), log=event_log)
        metering = Metering(meters, labels)
        loop.observers.append(metering.observe)
        answers.serve(loop, metering)
        served = Served(
            name=config.name,
            context=config.context,
            created=now_unix(),
            facts=facts,
            places=places,
            tokenizer=tokenizer_facts(config.model),
            pids={item.place: item.pid for runner in config.runners for item in runner.processes},
        )
        service = Service(
            loop,
            spec=spec,
            tokenizer=tokenizer,
            chat=chat,
            served=served,
            links=links,
            meters=lambda: _meters(meters, loop),
            key=config.key,
        )
        await _run(config, links, readers, loop, service)


async def _run(
    config: EngineConfig,
    links: dict[str, DeviceLink],
    readers: list[asyncio.Task[None]],
    loop: EngineLoop,
    service: Service,
) -> None:
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)
    ticker = asyncio.create_task(_tick(loop))
    temporary = config.socket + ".starting"
    server = await asyncio.start_unix_server(service.connection, temporary)
    os.chmod(temporary, 0o600)
    Path(temporary).rename(config.socket)  # it exists from the moment it answers
    log.info("serving %s on %d runners, %d processes", config.name, len(config.runners), len(links))
    await stop.wait()
    server.close()
    for task in (*readers, ticker):
        task.cancel()
    for link in links.values():
        link.close()


async def _tick(loop: EngineLoop) -> None:
    while True:
        await asyncio.sleep(TICK_SECONDS)
        loop.feed(Tick())


def _wake(running: asyncio.AbstractEventLoop, loop: EngineLoop, at: float) -> None:
    """Feed a Tick at a time of the monotonic clock, which is the event loop's too."""
    running.call_at(at, lambda: loop.feed(Tick()))


def _open_log(config: EngineConfig, setup: SchedulerSetup, stack: contextlib.ExitStack) -> IO[bytes] | None:
    """The event log; its first line holds what the scheduler was started with, so that a replay needs nothing else."""
    if config.event_log is None:
        return None
    file = stack.enter_context(Path(config.event_log).open("wb", buffering=0))  # noqa: SIM115  # the stack closes it
    write_start(file, setup)
    return file


def _meters(meters: EngineMeters, loop: EngineLoop) -> str:
    state = loop.state
    meters.requests_running.set(len(state.sequences) - len(state.waiting))
    meters.requests_waiting.set(len(state.waiting))
    meters.kv_cache_usage.set(max((item.usage for item in state.runners.values()), default=0.0))
    return meters.text()
