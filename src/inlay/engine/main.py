"""The engine process: connects to its devices, runs the scheduler, serves clients on a unix socket.

Started by the orchestrator with a configuration; ends on SIGTERM. Holds no weights and loads no framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import IO, Any

import msgspec

from inlay.engine.journal import LogStart, write_start
from inlay.engine.links import DeviceLink
from inlay.engine.loop import EngineLoop
from inlay.engine.metering import Label, Metering
from inlay.engine.service import Served, Service, now_unix
from inlay.models import ChatEncoder, read_model, read_template, read_tokenizer
from inlay.scheduler import new_state
from inlay.specs.device import EngineToDevice
from inlay.specs.schedule import Answered, Lost, RunnerFacts, Tick
from inlay.telemetry import EngineMeters

TICK_SECONDS = 1.0
log = logging.getLogger("inlay.engine")


class RunnerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One device process as the orchestrator started it."""

    runner: str
    socket: str
    pid: int
    roles: tuple[str, ...]


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
        item.runner: DeviceLink(item.runner, socket=item.socket, key=config.key, silence=config.silence)
        for item in config.runners
    }
    ready = await asyncio.gather(*(link.open(seconds=config.load_seconds) for link in links.values()))
    facts = tuple(
        RunnerFacts(
            runner=item.runner,
            epoch=message.epoch,
            roles=item.roles,
            capacities=message.capacities,
            slots=message.slots,
            chunk=min(config.chunk, max(message.widths)) if message.widths else config.chunk,
            batches=message.batches,
        )
        for item, message in zip(config.runners, ready, strict=True)
    )
    meters = EngineMeters()
    labels = {item.runner: Label(item.runner.partition("/")[0], item.framework) for item in ready}
    for item in ready:
        meters.worker_epoch.labels(item.runner.partition("/")[0]).set(item.epoch)
    with contextlib.ExitStack() as stack:
        event_log = _open_log(config, facts, stack)
        state = new_state(facts, context=config.context, waiting_limit=config.waiting_limit, lease=config.lease)
        loop = EngineLoop(state, send=lambda runner, message: _send(links, runner, message), log=event_log)
        loop.observers.append(Metering(meters, labels).observe)
        served = Served(
            name=config.name,
            context=config.context,
            created=now_unix(),
            facts=facts,
            pids={item.runner: item.pid for item in config.runners},
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
        await _run(config, links, loop, service)


async def _run(config: EngineConfig, links: dict[str, DeviceLink], loop: EngineLoop, service: Service) -> None:
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)
    readers = [
        asyncio.create_task(
            link.read(
                lambda message, runner=name: loop.feed(Answered(runner, message)),  # type: ignore[misc]
                lambda reason, runner=name: loop.feed(Lost(runner, reason)),  # type: ignore[misc]
            )
        )
        for name, link in links.items()
    ]
    ticker = asyncio.create_task(_tick(loop))
    temporary = config.socket + ".starting"
    server = await asyncio.start_unix_server(service.connection, temporary)
    os.chmod(temporary, 0o600)
    Path(temporary).rename(config.socket)  # it exists from the moment it answers
    log.info("serving %s on %d runners", config.name, len(links))
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


def _send(links: dict[str, DeviceLink], runner: str, message: EngineToDevice) -> None:
    links[runner].send(message)


def _open_log(config: EngineConfig, facts: tuple[RunnerFacts, ...], stack: contextlib.ExitStack) -> IO[bytes] | None:
    """The event log; its first line holds what the scheduler was started with, so that a replay needs nothing else."""
    if config.event_log is None:
        return None
    file = stack.enter_context(Path(config.event_log).open("wb", buffering=0))  # noqa: SIM115  # the stack closes it
    write_start(file, LogStart(facts=facts, context=config.context, waiting_limit=config.waiting_limit, lease=config.lease))
    return file


def _meters(meters: EngineMeters, loop: EngineLoop) -> str:
    state = loop.state
    meters.requests_running.set(len(state.sequences))
    meters.requests_waiting.set(len(state.waiting))
    shares = [len(item.holders) / item.facts.slots for item in state.runners.values()]
    meters.kv_cache_usage.set(max(shares, default=0.0))
    return meters.text()
