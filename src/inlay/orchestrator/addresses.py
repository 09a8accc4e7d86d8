"""How the processes of a deployment reach one another: a unix socket within a node, a TCP address where a link says so."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from inlay.errors import DeploymentError, UnsupportedError
from inlay.hardware import Cluster, Node
from inlay.specs.deployment import Deployment
from inlay.transport import Tls

TCP = "tcp"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """Where one process listens: its socket's path, and on TCP ("" = not) inside of `tls` where its node has files for that."""

    socket: Path
    tcp: str = ""
    tls: Tls | None = None


def assign_addresses(deployment: Deployment, directory: Path) -> dict[str, Address]:
    """One for each place. Raises UnsupportedError for a node that is not this machine, DeploymentError for TLS at one end."""
    cluster = deployment.cluster
    devices = _devices(deployment)
    found: dict[str, Address] = {}
    for place, device in devices.items():
        over_tcp = [other for other in devices.values() if other != device and cluster.transport(device, other) == TCP]
        node = cluster.nodes[cluster.device(device).node]
        tcp = ""
        if over_tcp:
            for other in over_tcp:
                _check_tls(cluster, node, other)
            tcp = _listening(node)
        tls = None if node.tls is None or not tcp else Tls(**msgspec.structs.asdict(node.tls))
        found[place] = Address(directory / socket_name(place), tcp, tls)
    return found


def peers_of(deployment: Deployment, place: str, addresses: dict[str, Address]) -> dict[str, str]:
    """By place of all other processes the address to connect to."""
    devices = _devices(deployment)
    found = {}
    for other, device in devices.items():
        if other != place:
            over_tcp = deployment.cluster.transport(devices[place], device) == TCP
            found[other] = addresses[other].tcp if over_tcp else str(addresses[other].socket)
    return found


def _devices(deployment: Deployment) -> dict[str, str]:
    """By process its device."""
    return {role.process(item): item.device for role in deployment.roles for item in role.regions}


def socket_name(place: str) -> str:
    """The file name of a device's socket."""
    return place.replace("/", "-").replace(":", "-") + ".sock"


def _listening(node: Node) -> str:
    """A TCP address on this machine, its port one that is free now."""
    host = node.address or LOOPBACK
    try:
        family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, 0), family=family) as probe:
            port = probe.getsockname()[1]
    except OSError as error:
        raise UnsupportedError(
            f"node {node.name} has address {host!r}, expected one of this machine: {error}",
            hint="this version starts processes on the machine that it runs on; 127.0.0.1 is always one of it",
        ) from error
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _check_tls(cluster: Cluster, node: Node, other: str) -> None:
    theirs = cluster.nodes[cluster.device(other).node]
    if (node.tls is None) != (theirs.tls is None):
        with_files, without = (node, theirs) if theirs.tls is None else (theirs, node)
        raise DeploymentError(
            f"node {with_files.name} has TLS files and node {without.name} has none, expected both or neither on a tcp link",
            hint="give both nodes `tls: {certificate, key, authority}`",
        )
