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

from inlay.engine.journal import write_start
from inlay.engine.links import DeviceLink
from inlay.engine.loop import EngineLoop
from inlay.engine.metering import Label, Metering
from inlay.engine.replica import Outcome, Region, Replicas, Tell, join_facts
from inlay.engine.service import Served, Service, now_unix
from inlay.models import ChatEncoder, read_model, read_template, read_tokenizer, tokenizer_facts
from inlay.scheduler import new_state
from inlay.specs.device import DeviceToEngine
from inlay.specs.schedule import SchedulerSetup, Tick
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
    meters = EngineMeters()
    labels = {runner: Label.of([ready[place] for place in items]) for runner, items in places.items()}
    for item in ready.values():
        meters.worker_epoch.labels(Label.of([item]).device).set(item.epoch)
    with contextlib.ExitStack() as stack:
        setup = SchedulerSetup(
            facts=facts, context=config.context, waiting_limit=config.waiting_limit, lease=config.lease, salt=config.salt
        )
        event_log = _open_log(config, setup, stack)
        state = new_state(setup)
        loop = EngineLoop(state, send=lambda runner, message: _tell(links, replicas.send(runner, message)), log=event_log)
        metering = Metering(meters, labels)
        loop.observers.append(metering.observe)
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
        await _run(config, links, _Answers(links, replicas, loop, metering), service)


class _Answers:
    """What processes say, joined into events of their runners; the scheduler is told those."""

    def __init__(self, links: dict[str, DeviceLink], replicas: Replicas, loop: EngineLoop, metering: Metering) -> None:
        self._links, self._replicas, self.loop, self._metering = links, replicas, loop, metering

    def heard(self, place: str, message: DeviceToEngine) -> None:
        """One message of one process."""
        self._metering.worked(place, message)
        self._take(self._replicas.heard(place, message))

    def lost(self, place: str, reason: str) -> None:
        """A process has gone."""
        self._take(self._replicas.lost(place, reason))

    def _take(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Tell):
                _tell(self._links, [outcome])
            else:
                self.loop.feed(outcome)


async def _run(config: EngineConfig, links: dict[str, DeviceLink], answers: _Answers, service: Service) -> None:
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)
    readers = [
        asyncio.create_task(link.read(partial(answers.heard, place), partial(answers.lost, place)))
        for place, link in links.items()
    ]
    ticker = asyncio.create_task(_tick(answers.loop))
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


def _tell(links: dict[str, DeviceLink], told: list[Tell]) -> None:
    for item in told:
        links[item.place].send(item.message)


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
    shares = [len(item.holders) / item.facts.slots for item in state.runners.values()]
    meters.kv_cache_usage.set(max(shares, default=0.0))
    return meters.text()
