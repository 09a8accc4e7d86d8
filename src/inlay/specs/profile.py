"""What was timed, what is wanted to be timed, and what is expected: Profile (measured), Measurement (wanted), Estimate.

Seconds, bytes and operations per second everywhere. The partitioner asks, `runtime/measure.py` answers, `cost` keeps.
"""

from __future__ import annotations

import msgspec

from inlay.hardware import Place
from inlay.specs.precision import Precision

GRADES = ("measured", "calibrated", "modelled", "vendor")
WAYS = ("within", "memory", "network")


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its interval and its evidence grade, one of GRADES. Seconds unless its owner says otherwise."""

    value: float
    low: float
    high: float
    grade: str


class ProfileKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a time belongs to. `program` is the structural digest of what was run (a block or a run of blocks);
    `version` the framework's; `kind` the kind of device (`hardware.device_kind`), so that equal devices share times.

    A run of blocks is either lowered whole (`fused`) or its blocks' executables run in order; one block is always fused.
    """

    program: str
    sizes: tuple[tuple[str, int], ...]
    precision: Precision
    backend: str
    version: str
    kind: str
    threads: int
    fused: bool = True


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Measured seconds of one run: median with the 25 % and 75 % quantiles of `rounds` rounds; the bytes that loading and
    running it added to the process beside mapped weights (0 = not known); when it was taken (ISO date)."""

    key: ProfileKey
    median: float
    low: float
    high: float
    rounds: int
    memory: int = 0
    taken: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A lowering or a measurement that could not be had, with the reason: "unsupported here" for the search."""

    key: ProfileKey
    reason: str


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to lower and time: blocks `first` to `end` (not included), at `device` with `backend`; a key for each point.

    Any other blocks with the same digest and any other device of the same kind have the same times.
    """

    first: int
    end: int
    device: str
    backend: str
    keys: tuple[ProfileKey, ...]
    fused: bool = True

    @property
    def place(self) -> Place:
        """Where it is to be timed."""
        return Place(self.device, self.backend)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements that the partitioner needs next, the `stage` of its search ("blocks", "floors", "regions") and why."""

    measurements: tuple[Measurement, ...]
    stage: str
    reason: str = ""


class LinkProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What moving bytes costs between two kinds of device: seconds = latency + bytes / bandwidth.

    `way` is one of WAYS: from one region to the next "within" a process (source and destination alike), through shared
    "memory" between processes of a node, or over a "network". Half of all rounds lay within `spread` (a share) of that.
    """

    source: str
    destination: str
    latency: float
    bandwidth: float
    grade: str
    way: str = "memory"
    spread: float = 0.25


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one kind of device: operations per second by dtype (a large matrix product), bytes per second of its
    memory, and what starting one executable costs."""

    kind: str
    peaks: dict[str, float]
    bandwidth: float
    launch: float = 1e-5
    grade: str = "measured"
    taken: str = ""
