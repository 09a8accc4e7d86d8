"""The nouns of hardware: Chip, Memory, Device, Link, Node, Cluster, and how a place is spelled.

Frozen data only. Files are read in `cluster_file`, the machine is read in `probe`.
"""

from __future__ import annotations

import re

import msgspec

from inlay.errors import ClusterError
from inlay.units import Bytes, BytesPerSecond, Seconds, Watts

DEVICE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*:(0|[1-9][0-9]*)")
TRANSPORTS = ("shared", "tcp")
HELD = ("owned", "rentable", "imagined")
BACKEND_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """One memory of a chip: its name ("ddr", "hbm"), size, and bandwidth where known."""

    name: str
    size: Bytes
    bandwidth: BytesPerSecond | None = None


class Chip(msgspec.Struct, frozen=True, kw_only=True):
    """A product: kind ("cpu", "gpu", ...), instruction sets of a CPU, memories fastest first."""

    name: str
    kind: str = "cpu"
    instruction_sets: tuple[str, ...] = ()
    memories: tuple[Memory, ...] = ()


class NodeTls(msgspec.Struct, frozen=True, kw_only=True):
    """The PEM files of one host for links inside of TLS: its certificate with its key, and the authority of all of them."""

    certificate: str
    key: str
    authority: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One host; `zone` is where it stands, as far as placement cares. `address` is where other hosts reach it, a name or a
    number; with `tls` what comes and goes there is encrypted."""

    name: str
    zone: str = ""
    address: str = ""
    tls: NodeTls | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One usable instance of a chip, `<alias>:<index>`. A CPU is divisible: `cores` are the cores it may use.

    `memory` is its share in bytes (None = unknown), `backends` those allowed there (None = any), `numa` the
    memory zone of its cores where the host says so. `target` names the kind of code it takes, where that is not its
    node's own ("vulkan"); its cores are then those of the process that drives it. `price` is dollars an hour and `power`
    watts while it works (None = unknown).
    """

    name: str
    node: str
    chip: str = ""
    cores: tuple[int, ...] = ()
    memory: Bytes | None = None
    backends: tuple[str, ...] | None = None
    numa: int | None = None
    target: str = ""
    price: float | None = None
    power: float | None = None

    def allows(self, backend: str) -> bool:
        """Whether that backend may be placed here."""
        return self.backends is None or backend in self.backends


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A connection of two devices or nodes, alike in both directions. `transport` says how data takes it, where that is not
    left to the nodes: "shared" memory on one of them, or "tcp"."""

    ends: tuple[str, str]
    bandwidth: BytesPerSecond
    latency: Seconds
    transport: str = ""


class FleetChips(msgspec.Struct, frozen=True, kw_only=True):
    """`count` chips of one kind of the catalogue that plans may use, here or not. `held` is one of HELD: an owned chip costs
    its power and space alone. `price` is dollars once for a chip, `hour` dollars an hour, `power` all-in watts, where they
    are other than the catalogue's (None)."""

    chip: str
    count: int
    held: str = "imagined"
    price: float | None = None
    hour: float | None = None
    power: Watts | None = None


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes and devices by name, the links between them, and what is known of the chips by name. `fleet` are chips, by the name
    that its file gives them, that plans may use without a device being described; links may end at them too."""

    nodes: dict[str, Node]
    devices: dict[str, Device]
    links: tuple[Link, ...] = ()
    chips: dict[str, Chip] = {}
    fleet: dict[str, FleetChips] = {}

    def device(self, name: str) -> Device:
        """The device of that name; ClusterError naming those there are."""
        if name not in self.devices:
            raise ClusterError(
                f"device {name!r} is not in the cluster, expected one of {sorted(self.devices)}", hint=PLACE_HINT
            )
        return self.devices[name]

    def transport(self, one: str, other: str) -> str:
        """How data goes between two devices: as the link of the two says, or that of their nodes; else "shared" memory within
        a node and "tcp" between nodes."""
        nodes = (self.device(one).node, self.device(other).node)
        for ends in ({one, other}, {nodes[0], other}, {one, nodes[1]}, set(nodes)):
            for link in self.links:
                if set(link.ends) == ends and link.transport:
                    return link.transport
        return "shared" if nodes[0] == nodes[1] else "tcp"


class Place(msgspec.Struct, frozen=True, order=True):
    """Where something runs: a device and a backend, spelled `DEVICE/BACKEND`."""

    device: str
    backend: str

    def __str__(self) -> str:
        return f"{self.device}/{self.backend}"


PLACE_HINT = "a place is written DEVICE/BACKEND, for example xeon:0/openvino"


def parse_place(text: str) -> Place:
    """`"xeon:0/openvino"` as a Place; ClusterError when it is spelled otherwise. Says nothing of its existence."""
    device, slash, backend = text.partition("/")
    if not slash or DEVICE_NAME.fullmatch(device) is None or BACKEND_NAME.fullmatch(backend) is None:
        raise ClusterError(f"place is {text!r}, expected DEVICE/BACKEND with a device <alias>:<index>", hint=PLACE_HINT)
    return Place(device, backend)
