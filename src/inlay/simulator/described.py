"""From a Deployment, which may be of devices that are not here, to what is simulated of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from inlay.cost import Links, weakest
from inlay.cost.links import STAGING
from inlay.errors import InputError
from inlay.hardware import Cluster
from inlay.simulator.links import LinkSetup
from inlay.simulator.simulation import SimulationSetup
from inlay.specs.deployment import Deployment, Role
from inlay.specs.kv import PAGE
from inlay.specs.latency import LatencyTable
from inlay.specs.rounds import ROUNDS
from inlay.specs.schedule import RunnerFacts, SchedulerSetup


def describe(
    deployment: Deployment,
    tables: Mapping[str, LatencyTable],
    *,
    kv_bytes: int,
    acceptance: float | None = None,
    failures: Mapping[str, float] = {},
    seed: int = 0,
) -> SimulationSetup:
    """What the engine of this deployment would tell its scheduler, with these tables by runner or by place. `kv_bytes` is what
    one token's KV takes over all layers. Raises InputError for a runner that has no table."""
    facts = tuple(_facts(deployment, role, _table(role, tables), kv_bytes=kv_bytes) for role in deployment.roles)
    devices = {role.runner: role.regions[0].device for role in deployment.roles if not role.drafts}
    return SimulationSetup(
        scheduler=SchedulerSetup(facts=facts, context=deployment.context, speculation=deployment.speculation),
        links=tuple(_links(deployment.cluster, devices)),
        failures=dict(failures),
        acceptance=acceptance,
        seed=seed,
    )


def _facts(deployment: Deployment, role: Role, table: LatencyTable, *, kv_bytes: int) -> RunnerFacts:
    slots, paged = deployment.slots_of(role), role.regions[0].runner == "paged"
    pages = deployment.paged_pool(PAGE) if paged else deployment.pages
    return RunnerFacts(
        runner=role.runner,
        epoch=1,
        roles=("prefill", "decode") if role.roles == ("target",) else role.roles,
        capacities=deployment.capacities[-1:] if paged else deployment.capacities,
        rooms=() if paged else deployment.rooms_of(role),
        slots=slots,
        chunk=deployment.chunk,
        page=PAGE,
        pages=0 if role.drafts else pages,
        paged=paged,
        keeps=deployment.pages > 0,
        device="+".join(region.device for region in role.regions),
        kv_bytes=kv_bytes,
        table=table,
        rounds=ROUNDS if len(role.regions) == 1 else 1,
    )


def _table(role: Role, tables: Mapping[str, LatencyTable]) -> LatencyTable:
    """That of the runner, or those of its processes one after another."""
    if role.runner in tables:
        return tables[role.runner]
    places = [role.process(region) for region in role.regions]
    missing = [place for place in places if place not in tables]
    if missing:
        raise InputError(
            f"{role.runner} has no latency table for {', '.join(missing)}, expected one each, or one of the runner; there are "
            f"{', '.join(tables) or 'none'}",
            hint="give --table PLACE=FILE, or simulate an event log of `inlay serve --event-log`, which has measured ones",
        )
    found = [tables[place] for place in places]
    return LatencyTable(
        fixed=sum(item.fixed for item in found),
        per_row=sum(item.per_row for item in found),
        per_token=sum(item.per_token for item in found),
        per_past=sum(item.per_past for item in found),
        spread=max(item.spread for item in found),
        overhead=sum(item.overhead for item in found),
        grade=weakest(item.grade for item in found),
    )


def _links(cluster: Cluster, devices: Mapping[str, str]) -> Iterator[LinkSetup]:
    """The way of a hand-off between any two runners. What takes the same link of the cluster, or the memory or network of the
    same nodes where it names none, shares it. A message is staged at both ends."""
    prices = Links(cluster)
    for source, here in devices.items():
        for destination, there in devices.items():
            if source == destination:
                continue
            price = prices.price(here, there)
            stated = any({here, there} == set(link.ends) for link in cluster.links)
            ends = (here, there) if stated else (cluster.device(here).node, cluster.device(there).node)
            yield LinkSetup(
                source=source,
                destination=destination,
                name=f"{price.way} {' to '.join(dict.fromkeys(ends))}",
                latency=price.latency + STAGING.latency,
                bandwidth=price.bandwidth or STAGING.bandwidth,
                grade=weakest((price.grade, STAGING.grade)),
            )


def recorded(
    scheduler: SchedulerSetup,
    *,
    acceptance: float | None = None,
    failures: Mapping[str, float] = {},
    seed: int = 0,
) -> SimulationSetup:
    """The engine that an event log begins with, its runners with the tables that were measured there. A log does not say how
    they are joined: hand-offs take shared memory as it usually is."""
    names = [item.runner for item in scheduler.facts if "draft" not in item.roles]
    return SimulationSetup(
        scheduler=scheduler,
        links=tuple(_in_memory(names)),
        acceptance=acceptance,
        failures=dict(failures),
        seed=seed,
    )


def _in_memory(names: Iterable[str]) -> Iterator[LinkSetup]:
    names = list(names)
    for source in names:
        for destination in names:
            if source != destination:
                yield LinkSetup(
                    source=source,
                    destination=destination,
                    name="memory",
                    latency=STAGING.latency,
                    bandwidth=STAGING.bandwidth,
                    grade=STAGING.grade,
                )
