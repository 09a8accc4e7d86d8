"""cluster.yaml to Cluster and back. The format: `nodes`, `devices`, `links`, and optionally `chips` and `fleet`, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from inlay.errors import ClusterError, InputError
from inlay.hardware.cluster import (
    BACKEND_NAME,
    DEVICE_NAME,
    HELD,
    TRANSPORTS,
    Chip,
    Cluster,
    Device,
    FleetChips,
    Link,
    Memory,
    Node,
    NodeTls,
)
from inlay.hardware.document import convert_document, read_document
from inlay.units import parse_bandwidth, parse_bytes, parse_power, parse_seconds

Quantity = int | float | str
T = TypeVar("T")


class _NodeEntry(msgspec.Struct, kw_only=True):
    zone: str | None = None
    address: str = ""
    tls: NodeTls | None = None


class _DeviceEntry(msgspec.Struct, kw_only=True):
    node: str
    chip: str = ""
    cores: tuple[int, ...] = ()
    memory: Quantity | None = None
    backends: tuple[str, ...] | None = None
    numa: int | None = None
    target: str = ""
    price: float | None = None
    power: float | None = None


class _LinkEntry(msgspec.Struct, kw_only=True):
    ends: tuple[str, str]
    bandwidth: Quantity
    latency: Quantity
    transport: str = ""


class _MemoryEntry(msgspec.Struct, kw_only=True):
    name: str
    size: Quantity
    bandwidth: Quantity | None = None


class _ChipEntry(msgspec.Struct, kw_only=True):
    kind: str = "cpu"
    instruction_sets: tuple[str, ...] = ()
    memories: tuple[_MemoryEntry, ...] = ()


class _FleetEntry(msgspec.Struct, kw_only=True):
    count: int
    held: str = "imagined"
    chip: str = ""
    price: float | None = None
    hour: float | None = None
    power: Quantity | None = None


class _ClusterEntry(msgspec.Struct, kw_only=True):
    nodes: dict[str, _NodeEntry | None] = {}
    devices: dict[str, _DeviceEntry] = {}
    links: tuple[_LinkEntry, ...] = ()
    chips: dict[str, _ChipEntry] = {}
    fleet: dict[str, _FleetEntry] = {}


def load_cluster(path: str | Path) -> Cluster:
    """The cluster a file describes. Every fault is a ClusterError with the value, what was expected and a hint."""
    file = Path(path)
    return parse_cluster(read_document(file, error=ClusterError), source=str(file))


def parse_cluster(raw: object, *, source: str) -> Cluster:
    """As `load_cluster`, from plain data; `source` names it in messages. The machine is not looked at."""
    entry = convert_document(raw, _ClusterEntry, source=source, error=ClusterError)
    nodes = {name: _node(name, node or _NodeEntry()) for name, node in entry.nodes.items()}
    if not (nodes and entry.devices) and (nodes or entry.devices or not entry.fleet):
        empty = "devices" if nodes else "nodes"
        raise ClusterError(f"{source}: {empty} is empty, expected at least one", hint="see examples/clusters")
    cluster = Cluster(
        nodes=nodes,
        devices={name: _device(name, device, nodes, source) for name, device in entry.devices.items()},
        links=tuple(_link(index, link, source) for index, link in enumerate(entry.links)),
        chips={name: _chip(name, chip, source) for name, chip in entry.chips.items()},
        fleet={name: _fleet(name, item, source) for name, item in entry.fleet.items()},
    )
    _check_links(cluster, source)
    return cluster


def describe_cluster(cluster: Cluster) -> dict[str, object]:
    """Plain data of the file format: `parse_cluster` of it gives an equal cluster."""
    chips = {name: msgspec.to_builtins(chip) for name, chip in cluster.chips.items()}
    devices = {name: msgspec.to_builtins(device) for name, device in cluster.devices.items()}
    for entry in (*chips.values(), *devices.values()):
        del entry["name"]
    described: dict[str, object] = {
        "nodes": {name: _described_node(node) for name, node in cluster.nodes.items()},
        "devices": {
            name: {key: value for key, value in item.items() if value is not None and (key, value) != ("target", "")}
            for name, item in devices.items()
        },
        "links": [
            {key: value for key, value in msgspec.to_builtins(link).items() if (key, value) != ("transport", "")}
            for link in cluster.links
        ],
    }
    if chips:
        described["chips"] = chips
    if cluster.fleet:
        told = {name: msgspec.to_builtins(item) for name, item in cluster.fleet.items()}
        described["fleet"] = {
            name: {key: value for key, value in item.items() if value is not None} for name, item in told.items()
        }
    return described


def dump_cluster(cluster: Cluster) -> str:
    """The text of a cluster file, in a stable order; reading it gives an equal cluster."""
    return yaml.safe_dump(describe_cluster(cluster), sort_keys=False, allow_unicode=True)


def check_local(cluster: Cluster, *, node: str = "local", usable: Iterable[int] | None = None) -> None:
    """Raise ClusterError for a core of a device on `node` that this process may not use (sched_getaffinity)."""
    cores = sorted(os.sched_getaffinity(0) if usable is None else usable)
    for device in cluster.devices.values():
        missing = [core for core in device.cores if core not in cores] if device.node == node else []
        if missing:
            raise ClusterError(
                f"device {device.name!r} has core {missing[0]}, expected cores of this machine: {cores}",
                hint="correct `cores`, or let inlay look with --cluster local",
            )


def _node(name: str, entry: _NodeEntry) -> Node:
    return Node(name=name, zone=entry.zone or "", address=entry.address, tls=entry.tls)


def _described_node(node: Node) -> dict[str, object]:
    told: dict[str, object] = {"zone": node.zone}
    if node.address:
        told["address"] = node.address
    if node.tls is not None:
        told["tls"] = msgspec.to_builtins(node.tls)
    return told


def _device(name: str, entry: _DeviceEntry, nodes: dict[str, Node], source: str) -> Device:
    where = f"{source}: device {name!r}"
    if DEVICE_NAME.fullmatch(name) is None:
        raise ClusterError(f"{where} is not a device name, expected <alias>:<index>", hint="write for example xeon:0")
    if entry.node not in nodes:
        raise ClusterError(f"{where} has node {entry.node!r}, expected one of {sorted(nodes)}", hint="add it under `nodes`")
    if min(entry.cores, default=0) < 0 or len(set(entry.cores)) < len(entry.cores):
        raise ClusterError(f"{where} has cores {list(entry.cores)}, expected each once, from 0", hint="list cores as [0, 1]")
    for backend in entry.backends or ():
        if BACKEND_NAME.fullmatch(backend) is None or entry.backends is None or entry.backends.count(backend) > 1:
            raise ClusterError(
                f"{where} has backends {list(entry.backends or ())}, expected names in lower case, each once",
                hint="for example [openvino, onnxruntime]",
            )
    memory = None if entry.memory is None else _read(parse_bytes, entry.memory, f"{where}: memory")
    if memory == 0:
        raise ClusterError(f"{where} has memory 0, expected more than zero", hint="leave `memory` out where it is unknown")
    if entry.numa is not None and entry.numa < 0:
        raise ClusterError(f"{where} has numa {entry.numa}, expected zero or more", hint="leave `numa` out where unknown")
    for what, amount in (("price", entry.price), ("power", entry.power)):
        if amount is not None and not 0 <= amount < float("inf"):
            raise ClusterError(f"{where} has {what} {amount}, expected zero or more", hint=f"leave `{what}` out where unknown")
    return Device(
        name=name,
        node=entry.node,
        chip=entry.chip,
        cores=entry.cores,
        memory=memory,
        backends=entry.backends,
        numa=entry.numa,
        target=entry.target,
        price=entry.price,
        power=entry.power,
    )


def _link(index: int, entry: _LinkEntry, source: str) -> Link:
    where = f"{source}: links[{index}]"
    if entry.transport and entry.transport not in TRANSPORTS:
        raise ClusterError(
            f"{where} has transport {entry.transport!r}, expected one of {list(TRANSPORTS)}",
            hint="leave it out: shared memory within a node, tcp between nodes",
        )
    return Link(
        ends=entry.ends,
        bandwidth=_read(parse_bandwidth, entry.bandwidth, f"{where}: bandwidth"),
        latency=_read(parse_seconds, entry.latency, f"{where}: latency"),
        transport=entry.transport,
    )


def _chip(name: str, entry: _ChipEntry, source: str) -> Chip:
    where = f"{source}: chip {name!r}"
    memories = tuple(
        Memory(
            name=memory.name,
            size=_read(parse_bytes, memory.size, f"{where}: size"),
            bandwidth=None if memory.bandwidth is None else _read(parse_bandwidth, memory.bandwidth, f"{where}: bandwidth"),
        )
        for memory in entry.memories
    )
    return Chip(name=name, kind=entry.kind, instruction_sets=entry.instruction_sets, memories=memories)


def _fleet(name: str, entry: _FleetEntry, source: str) -> FleetChips:
    where = f"{source}: fleet {name!r}"
    if entry.count < 1:
        raise ClusterError(
            f"{where} has count {entry.count}, expected at least 1", hint="leave out chips that there are none of"
        )
    if entry.held not in HELD:
        raise ClusterError(f"{where} is held {entry.held!r}, expected one of {', '.join(HELD)}", hint="imagined is the default")
    for what, amount in (("price", entry.price), ("hour", entry.hour)):
        if amount is not None and not 0 <= amount < float("inf"):
            raise ClusterError(
                f"{where} has {what} {amount}, expected dollars from 0", hint=f"leave `{what}` out where unknown"
            )
    if entry.price is not None and entry.hour is not None:
        raise ClusterError(
            f"{where} has price {entry.price:g} and hour {entry.hour:g}, expected one of the two", hint="leave one out"
        )
    power = None if entry.power is None else _read(parse_power, entry.power, f"{where}: power")
    return FleetChips(
        chip=entry.chip or name, count=entry.count, held=entry.held, price=entry.price, hour=entry.hour, power=power
    )


def _check_links(cluster: Cluster, source: str) -> None:
    known = sorted([*cluster.devices, *cluster.nodes, *cluster.fleet])
    seen: set[frozenset[str]] = set()
    for index, link in enumerate(cluster.links):
        where = f"{source}: links[{index}] has ends {list(link.ends)}"
        unknown = [end for end in link.ends if end not in known]
        if unknown:
            raise ClusterError(f"{where}, expected devices or nodes: {known}", hint=f"{unknown[0]!r} is not one of them")
        if link.transport == "shared" and len({cluster.devices[e].node if e in cluster.devices else e for e in link.ends}) > 1:
            raise ClusterError(f"{where} and transport 'shared', expected 'tcp' between two nodes", hint="leave it out")
        if link.ends[0] == link.ends[1]:
            raise ClusterError(f"{where}, expected two different ends", hint="remove this link")
        if frozenset(link.ends) in seen:
            raise ClusterError(f"{where}, which were given before", hint="a link goes both ways: keep one of the two")
        seen.add(frozenset(link.ends))


def _read(parse: Callable[..., T], value: object, name: str) -> T:
    """A quantity, its fault told as one of the cluster."""
    try:
        return parse(value, name=name)
    except InputError as cause:
        raise ClusterError(cause.message, hint=cause.hint) from cause
