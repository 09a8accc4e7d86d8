"""What it costs to move a value: within a process, between processes of a node, between nodes.

The best evidence wins: a measured LinkProfile, then a link of the cluster file, then a modelled default that says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inlay.cost.estimates import NOTHING, scaled, total
from inlay.hardware import Cluster, device_kind
from inlay.specs.profile import Estimate, LinkProfile


@dataclass(frozen=True)
class LinkPrice:
    """seconds = latency + bytes / bandwidth, with what both are at best and at worst. `way` is one of specs' WAYS."""

    way: str
    latency: float
    bandwidth: float
    best: tuple[float, float]
    worst: tuple[float, float]
    grade: str

    def seconds(self, size: int) -> Estimate:
        """What moving one value of `size` bytes costs."""
        ends = ((self.latency, self.bandwidth), self.best, self.worst)
        value, low, high = (latency + (size / bandwidth if bandwidth else 0.0) for latency, bandwidth in ends)
        return Estimate(value=value, low=low, high=high, grade=self.grade)


# Seconds and bytes per second (0 = not charged): expected, best, worst. A cut within one process binds the same buffer
# twice and copies nothing; a ring in shared memory is one copy; a network is taken for 10 gigabit Ethernet.
DEFAULTS = {
    "within": LinkPrice("within", 15e-6, 0.0, (5e-6, 0.0), (50e-6, 0.0), "modelled"),
    "memory": LinkPrice("memory", 10e-6, 5e9, (4e-6, 10e9), (50e-6, 1.5e9), "modelled"),
    "network": LinkPrice("network", 60e-6, 1.1e9, (20e-6, 1.25e9), (1e-3, 0.1e9), "modelled"),
}
# What the runtime adds to a message between processes: the value is read from one buffer and written to another (two copies
# beside the ring's), and a process wakes up. Of the order of what benchmarks/stitched.py measures across processes.
STAGING = LinkPrice("memory", 150e-6, 5e9, (50e-6, 10e9), (500e-6, 2e9), "modelled")
STATED_AT_WORST = 2.0  # a link of the cluster file is a data sheet's: real transfers take up to this much longer


class Links:
    """The links of one cluster with what was measured of them."""

    def __init__(self, cluster: Cluster, profiles: Iterable[LinkProfile] = ()) -> None:
        self._cluster = cluster
        self._profiles = {(item.way, item.source, item.destination): item for item in profiles}
        self._stated = {frozenset(link.ends): link for link in cluster.links}

    def way(self, source: str, destination: str) -> str:
        """How bytes get from one device to another."""
        if source == destination:
            return "within"
        nodes = {self._cluster.device(name).node for name in (source, destination)}
        return "memory" if len(nodes) == 1 else "network"

    def price(self, source: str, destination: str) -> LinkPrice:
        """What the way from one device to another costs. Raises ClusterError for a device that is not in the cluster."""
        way = self.way(source, destination)
        kinds = [device_kind(self._cluster, name) for name in (source, destination)]
        for pair in (kinds, kinds[::-1]):
            if (way, pair[0], pair[1]) in self._profiles:
                return _measured(self._profiles[way, pair[0], pair[1]])
        nodes = frozenset(self._cluster.device(name).node for name in (source, destination))
        link = self._stated.get(frozenset((source, destination))) or self._stated.get(nodes)
        if link is None or way == "within":
            return DEFAULTS[way]
        best, worst = (link.latency, link.bandwidth), (link.latency * STATED_AT_WORST, link.bandwidth / STATED_AT_WORST)
        return LinkPrice(way, link.latency, link.bandwidth, best, worst, "vendor")

    def transfer(self, source: str, destination: str, sizes: Iterable[int]) -> Estimate:
        """Moving one value at every point, `sizes` bytes each; nothing where it stays on its device."""
        if source == destination:
            return NOTHING
        price = self.price(source, destination)
        return total(part for size in sizes for part in (price.seconds(size), STAGING.seconds(size)))

    def handover(self, device: str, passes: int) -> Estimate:
        """Going on from one executable to the next in the process of a device, `passes` times."""
        return scaled(self.price(device, device).seconds(0), passes)


def _measured(profile: LinkProfile) -> LinkPrice:
    less, more = 1.0 - min(profile.spread, 0.9), 1.0 + profile.spread
    best = (profile.latency * less, profile.bandwidth / less)
    worst = (profile.latency * more, profile.bandwidth / more)
    return LinkPrice(profile.way, profile.latency, profile.bandwidth, best, worst, profile.grade)
