"""What a run of blocks costs at a place, by the best evidence there is, or why it cannot be had.

Measured as a whole; else, block by block, the sum of measured medians and of the cuts between; else, fused and of equal
blocks, the line through the lengths that were measured; else the roofline of the device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from inlay.cost.chain import Chain
from inlay.cost.estimates import from_profile, predicted, total
from inlay.cost.links import Links
from inlay.cost.memory import region_memory
from inlay.cost.roofline import roofline_seconds
from inlay.cost.runs import LENGTHS, RunFit, fit_runs
from inlay.hardware import Cluster, Place, device_kind
from inlay.specs.precision import Precision
from inlay.specs.profile import Estimate, Profile, ProfileKey, Roofline


@dataclass(frozen=True)
class Price:
    """Seconds of one pass over all points, as named parts whose sum it is; bytes on the device; and what it rests on."""

    seconds: Estimate
    memory: int
    parts: tuple[tuple[str, Estimate], ...]
    source: str


@dataclass(frozen=True)
class Refusal:
    """Why there is no price."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known: what was measured and what failed, by key, and the rooflines by kind of device.

    `runs` are the runs of several blocks (first, end) that profiles are looked up for.
    """

    profiles: Mapping[ProfileKey, Profile]
    failures: Mapping[ProfileKey, str]
    rooflines: Mapping[str, Roofline]
    runs: Collection[tuple[int, int]] = ()


class Prices:
    """The prices of one chain on one cluster, as the evidence is now. `versions` names each backend's framework version."""

    def __init__(
        self,
        chain: Chain,
        *,
        cluster: Cluster,
        links: Links,
        evidence: Evidence,
        precision: Precision,
        versions: Mapping[str, str],
    ) -> None:
        self.chain, self.links, self.cluster = chain, links, cluster
        self._evidence, self._precision, self._versions = evidence, precision, versions
        self._fits: dict[tuple[int, int, Place], RunFit | None] = {}
        self._blocks: dict[tuple[int, Place], Price | Refusal] = {}
        self._handovers: dict[str, Estimate] = {}

    def keys(self, first: int, end: int, place: Place, *, fused: bool) -> tuple[ProfileKey, ...]:
        """The key of a run of blocks at a place for each point, in their order."""
        device, digest = self.cluster.device(place.device), self.chain.piece(first, end).digest
        return tuple(
            ProfileKey(
                program=digest,
                sizes=tuple(sorted(point.items())),
                precision=self._precision,
                backend=place.backend,
                version=self._versions.get(place.backend, ""),
                kind=device_kind(self.cluster, place.device),
                threads=max(len(device.cores), 1),
                fused=fused or end - first == 1,
            )
            for point in self.chain.points
        )

    def unknown(self, keys: Iterable[ProfileKey]) -> tuple[ProfileKey, ...]:
        """Those that neither succeeded nor failed yet."""
        return tuple(key for key in keys if key not in self._evidence.profiles and key not in self._evidence.failures)

    def block(self, index: int, place: Place) -> Price | Refusal:
        """One block: measured, else by roofline, else refused."""
        if (index, place) not in self._blocks:
            self._blocks[index, place] = self._block(index, place)
        return self._blocks[index, place]

    def sequence(self, first: int, end: int, place: Place) -> Price | Refusal:
        """Blocks whose executables run in order: measured as such, else the sum of blocks and of the cuts between them."""
        if end - first == 1:
            return self.block(first, place)
        measured = self._measured(first, end, place, fused=False)
        if measured is not None:
            return measured
        prices: list[Price] = []
        for index in range(first, end):
            price = self.block(index, place)
            if isinstance(price, Refusal):
                return price
            prices.append(price)
        cuts = [(cut_name(at, place.device), self.handover(place.device)) for at in range(first + 1, end)]
        parts = tuple(part for price in prices for part in price.parts) + tuple(cuts)
        seconds = predicted(total(item for _, item in parts))
        return Price(seconds, sum(price.memory for price in prices), parts, f"the sum of {end - first} blocks")

    def fused(self, first: int, end: int, place: Place) -> Price | Refusal:
        """Blocks lowered whole: measured, else from the line through measured lengths of equal blocks, else refused."""
        if end - first == 1:
            return self.block(first, place)
        measured = self._measured(first, end, place, fused=True)
        if measured is not None:
            return measured
        stretch = next((item for item in self.chain.equal_stretches if item[0] <= first and end <= item[1]), None)
        fit = None if stretch is None else self._fit(stretch, place)
        if stretch is None or fit is None:
            return Refusal("not measured as a whole")
        seconds = fit.predict(end - first)
        name = f"fused {first}-{end - 1} at {place}"
        source = f"interpolated from fused runs of {', '.join(map(str, LENGTHS))} equal blocks"
        memory = self._run_memory(stretch, end - first, place)
        return Price(seconds, memory, ((name, seconds),), source)

    def handover(self, device: str) -> Estimate:
        """Going on to the next executable within a device's process, once for every point."""
        if device not in self._handovers:
            self._handovers[device] = self.links.handover(device, len(self.chain.points))
        return self._handovers[device]

    def _block(self, index: int, place: Place) -> Price | Refusal:
        measured = self._measured(index, index + 1, place, fused=True)
        if measured is not None:
            return measured
        kind = device_kind(self.cluster, place.device)
        roofline = self._evidence.rooflines.get(kind)
        if roofline is None:
            return Refusal(f"never measured at {place}, and no roofline of {kind!r} is known")
        dtype = self._precision.compute
        block, weights = self.chain.blocks[index], self.chain.weight_bytes(index, index + 1)
        seconds: list[Estimate] = []
        for point, flops in zip(self.chain.points, self.chain.flops[index], strict=True):
            moved = weights + sum(self.chain.value_bytes(name, point) for name in (*block.inputs, *block.outputs))
            guess = roofline_seconds(roofline, flops=flops, traffic=moved, dtype=dtype)
            if guess is None:
                return Refusal(f"never measured at {place}, and the roofline of {kind!r} has no peak for {dtype}")
            seconds.append(guess)
        whole = total(seconds)
        return Price(whole, region_memory(self.chain, index, index + 1), ((block_name(index, place), whole),), "roofline only")

    def _measured(self, first: int, end: int, place: Place, *, fused: bool) -> Price | Refusal | None:
        """By profiles of every point; refused where one failed; None where one is missing."""
        if end - first > 1 and (first, end) not in self._evidence.runs:
            return None
        profiles = []
        for key in self.keys(first, end, place, fused=fused):
            if key in self._evidence.failures:
                return Refusal(self._evidence.failures[key])
            if key not in self._evidence.profiles:
                return None
            profiles.append(self._evidence.profiles[key])
        seconds = total(map(from_profile, profiles))
        memory = region_memory(self.chain, first, end, measured=max((item.memory for item in profiles), default=0))
        way = "fused" if fused else "sequence"
        name = block_name(first, place) if end - first == 1 else f"{way} {first}-{end - 1} at {place}"
        return Price(seconds, memory, ((name, seconds),), "measured")

    def _run_memory(self, stretch: tuple[int, int], length: int, place: Place) -> int:
        """Bytes of a fused run of equal blocks: as the first ones need, what frameworks add growing with the weights."""
        start, dearest = stretch[0], 0.0
        for measured in range(1, stretch[1] - start + 1):
            for fused in (True, False):
                price = self._measured(start, start + measured, place, fused=fused)
                if isinstance(price, Price):
                    dearest = max(dearest, (price.memory - region_memory(self.chain, start, start + measured)) / measured)
        return region_memory(self.chain, start, start + length) + round(dearest * length)

    def _fit(self, stretch: tuple[int, int], place: Place) -> RunFit | None:
        """The line for a stretch of equal blocks at a place, from the runs at its beginning."""
        start, stop = stretch
        if (start, stop, place) not in self._fits:
            measured: dict[int, Estimate] = {}
            for length in range(1, stop - start + 1):
                price = self._measured(start, start + length, place, fused=True)
                if isinstance(price, Price):
                    measured[length] = price.seconds
            self._fits[start, stop, place] = fit_runs(measured)
        return self._fits[start, stop, place]


def block_name(index: int, place: Place) -> str:
    """The name of the part that one block is."""
    return f"block {index} at {place}"


def cut_name(at: int, device: str) -> str:
    """The name of the part that a cut before block `at` within a device's process is."""
    return f"cut {at} at {device}"
