"""What a machine was measured to do: DeviceProfile and MeasuredLink, kept on disk. Read by deciders, made by `runtime`."""

from __future__ import annotations

import math

import msgspec

from inlay.errors import ArtifactError
from inlay.specs.profile import GRADES, Estimate, LinkProfile, Roofline

ROOFLINE_VERSION = 1
PRODUCTS = ("float32", "float64", "bfloat16", "int8")
MEMORY = ("read", "write", "copy")


class Spread(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Samples of one figure: the best one, the median, the 25 % and 75 % quantiles. The best is the highest of rates and
    the lowest of durations. Units are its owner's."""

    best: float
    median: float
    low: float
    high: float
    samples: int

    def estimate(self) -> Estimate:
        """The median with its quantiles, measured."""
        return Estimate(value=self.median, low=self.low, high=self.high, grade="measured")


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The roofline of one kind of device, measured on `device` with `threads` pinned threads.

    `products` are operations a second (a multiplication and an addition are two) of a square matrix product, by dtype, and
    `sides` the sides of the matrices; `memory` bytes a second by direction, "copy" counting what is read and what is written;
    `array` the bytes of the arrays that were gone through, `cache` those of the last cache (0 = not known). `absent` says why
    a figure is not there. `chip` is what the machine calls itself, `load` how many threads wanted to run in the minute before,
    `versions` what it was measured with, `taken` an ISO date.
    """

    kind: str
    device: str
    chip: str
    cores: int
    threads: int
    products: dict[str, Spread]
    sides: dict[str, int]
    memory: dict[str, Spread]
    array: int
    cache: int
    absent: dict[str, str]
    versions: dict[str, str]
    load: float
    taken: str
    grade: str = "measured"
    version: int = ROOFLINE_VERSION

    def peak(self, dtype: str) -> float | None:
        """The most operations a second that were seen in this dtype; None where it was not measured."""
        found = self.products.get(dtype)
        return None if found is None else found.best

    @property
    def bandwidth(self) -> float | None:
        """The most bytes a second that were seen in reading; None where it was not measured."""
        found = self.memory.get("read")
        return None if found is None else found.best

    def roofline(self) -> Roofline | None:
        """What of it deciders reckon with; None where nothing bounds a time."""
        peaks = {dtype: found.best for dtype, found in self.products.items()}
        if self.bandwidth is None or not peaks:
            return None
        return Roofline(kind=self.kind, peaks=peaks, bandwidth=self.bandwidth, grade=self.grade, taken=self.taken)

    def check(self) -> None:
        """Raise ArtifactError that names the value which no machine has."""
        if self.version != ROOFLINE_VERSION or self.grade not in GRADES or min(self.cores, self.threads - 1) < 0:
            raise ArtifactError(
                f"version {self.version}, grade {self.grade!r}, {self.cores} cores, {self.threads} threads, expected "
                f"version {ROOFLINE_VERSION}, a grade of {', '.join(GRADES)} and at least 1 thread"
            )
        for name, found in (*self.products.items(), *self.memory.items()):
            if name not in (*PRODUCTS, *MEMORY):
                raise ArtifactError(f"figure {name!r} is not known, expected one of {', '.join((*PRODUCTS, *MEMORY))}")
            check_spread(name, found, rate=True)


class MeasuredLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Messages between two processes of this host, measured between the devices `ends`; `kinds` are theirs.

    `relation` is "same device", "same zone" or "other zone" (of memory). `small` and `large` are seconds of one message of
    so many bytes: copied in, taken out into an array at the other end and acknowledged, by Python at both ends.
    `latency` and `bandwidth` are the line through the two medians. `load` is as in DeviceProfile.
    """

    ends: tuple[str, str]
    kinds: tuple[str, str]
    relation: str
    small_bytes: int
    small: Spread
    large_bytes: int
    large: Spread
    latency: float
    bandwidth: float
    load: float
    taken: str
    grade: str = "measured"
    version: int = ROOFLINE_VERSION

    def profile(self) -> LinkProfile:
        """What it says of processes of the two kinds of device; half of the samples lay within its spread."""
        source, destination = self.kinds
        shares = [max(item.high - item.median, item.median - item.low) / item.median for item in (self.small, self.large)]
        return LinkProfile(
            source=source,
            destination=destination,
            latency=self.latency,
            bandwidth=self.bandwidth,
            grade=self.grade,
            way="memory",
            spread=max(shares),
        )

    def check(self) -> None:
        """Raise ArtifactError that names the value which no link has."""
        if self.version != ROOFLINE_VERSION or self.grade not in GRADES or self.relation not in RELATIONS:
            raise ArtifactError(
                f"version {self.version}, grade {self.grade!r}, relation {self.relation!r}, expected version "
                f"{ROOFLINE_VERSION}, a grade of {', '.join(GRADES)} and a relation of {', '.join(RELATIONS)}"
            )
        check_spread("small", self.small, rate=False)
        check_spread("large", self.large, rate=False)
        if not (0 <= self.latency < math.inf and 0 < self.bandwidth < math.inf):
            raise ArtifactError(f"latency {self.latency}, bandwidth {self.bandwidth}, expected them finite and above zero")


RELATIONS = ("same device", "same zone", "other zone")


def check_spread(name: str, found: Spread, *, rate: bool) -> None:
    """Raise ArtifactError where the numbers cannot come from samples."""
    ordered = 0 < found.low <= found.median <= found.high < math.inf and found.samples > 0
    if not ordered or not (found.best >= found.high if rate else 0 < found.best <= found.low):
        raise ArtifactError(
            f"figure {name!r} has best {found.best}, quartiles {found.low}, {found.median}, {found.high} of "
            f"{found.samples} samples, expected them above zero and in order"
        )


class MachineFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What is known by measurement of the devices of a cluster: profiles by device name, links between kinds of device.

    `absent` says by device why it has no profile; `damaged` are kept files that cannot be used, each named, with the reason.
    """

    profiles: dict[str, DeviceProfile] = {}
    links: tuple[MeasuredLink, ...] = ()
    absent: dict[str, str] = {}
    damaged: tuple[str, ...] = ()

    def rooflines(self) -> tuple[Roofline, ...]:
        """One for each kind of device, for deciders."""
        found = {profile.kind: profile.roofline() for profile in self.profiles.values()}
        return tuple(item for item in found.values() if item is not None)

    def link_profiles(self) -> tuple[LinkProfile, ...]:
        """One for each pair of kinds, between different devices; across zones where that is slower."""
        found: dict[tuple[str, str], MeasuredLink] = {}
        for link in self.links:
            other = found.get(link.kinds)
            if link.relation != "same device" and (other is None or link.large.median > other.large.median):
                found[link.kinds] = link
        return tuple(link.profile() for link in found.values())
