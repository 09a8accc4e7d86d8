"""Real deployments for tests: all processes, requests arriving staggered through the engine's own protocol."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from inlay import api
from inlay.client import EngineClient
from inlay.hardware import Cluster, Device, Link, Node
from inlay.models import read_model
from inlay.orchestrator import Running, start_local
from inlay.specs.deployment import Deployment, deployment_from_roles
from inlay.specs.generation import Delta, Failed, Generate, GenerationParameters, Placement
from inlay.specs.precision import Precision
from inlay.units import BytesPerSecond, Seconds

AT_ONCE = 8


def cluster(backends: Sequence[str], *, transport: str = "") -> Cluster:
    """One device per backend, on the cores of this machine in turn (devices may share a core); `transport` of all links."""
    cores = sorted(os.sched_getaffinity(0))
    devices = {
        f"cpu:{index}": Device(name=f"cpu:{index}", node="local", chip="cpu", cores=(cores[index % len(cores)],))
        for index in range(len(backends))
    }
    links = tuple(
        Link(ends=ends, bandwidth=BytesPerSecond(1e9), latency=Seconds(1e-5), transport=transport)
        for ends in itertools.combinations(devices, 2)
        if transport
    )
    return Cluster(nodes={"local": Node(name="local")}, devices=devices, links=links)


def deployment(
    model: Path,
    backends: Sequence[str],
    *,
    roles: Sequence[str] = (),
    context: int = 512,
    slots: int = 8,
    chunk: int = 64,
    transport: str = "",
    precision: Mapping[str, Precision] | None = None,
) -> Deployment:
    """Every backend on a device of its own with both roles, or the roles given."""
    wanted = list(roles) or [f"prefill,decode=cpu:{index}/{name}" for index, name in enumerate(backends)]
    return deployment_from_roles(
        str(model),
        cluster(backends, transport=transport),
        wanted,
        context=context,
        slots=slots,
        chunk=chunk,
        capacities=(128, context),
        precision=precision or {},
        depth=read_model(model).layers,
    )


@contextmanager
def running(
    wanted: Deployment,
    *,
    faults: Mapping[str, str] | None = None,
    event_log: Path | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Iterator[Running]:
    """A deployment that runs until the block ends."""
    found = start_local(wanted, faults=faults, event_log=event_log, seconds=seconds)
    try:
        yield found
    finally:
        found.stop()


def places(wanted: Deployment) -> list[str]:
    return [role.runner for role in wanted.roles]


async def tokens_of(
    client: EngineClient, prompt: tuple[int, ...], placement: Placement, parameters: GenerationParameters
) -> list[int]:
    tokens: list[int] = []
    async for event in client.generate(Generate(call=0, tokens=prompt, parameters=parameters, placement=placement)):
        if isinstance(event, Delta):
            tokens += event.tokens
        elif isinstance(event, Failed):
            raise AssertionError(f"request failed: {event.code}: {event.message}")
    return tokens


def generate(
    it: Running,
    jobs: Sequence[tuple[tuple[int, ...], Placement]],
    *,
    parameters: GenerationParameters,
    at_once: int = AT_ONCE,
    stagger: float = 0.01,
) -> list[list[int]]:
    """All jobs, at most `at_once` in the engine at a time, each arriving after a random pause of up to `stagger` seconds."""
    rng = random.Random(5)
    pauses = [rng.random() * stagger for _ in jobs]

    async def work() -> list[list[int]]:
        gate = asyncio.Semaphore(at_once)
        async with EngineClient(it.engine_socket, key=it.key, silence_seconds=120.0) as client:

            async def job(index: int) -> list[int]:
                async with gate:
                    await asyncio.sleep(pauses[index])
                    prompt, placement = jobs[index]
                    return await tokens_of(client, prompt, placement, parameters)

            return list(await asyncio.gather(*(job(index) for index in range(len(jobs)))))

    return asyncio.run(work())


def backends_present() -> list[str]:
    """Backends that can compute on this machine, the null one left out; or those named in INLAY_TEST_BACKENDS."""
    named = os.environ.get("INLAY_TEST_BACKENDS")
    if named:
        return named.split(",")
    return [item.backend for item in api.devices().backends if item.available and item.backend != "null"]
