"""What was timed and what is expected: Profile (measured) and Estimate (any grade). Seconds everywhere."""

from __future__ import annotations

import msgspec

from inlay.specs.precision import Precision

GRADES = ("measured", "calibrated", "modelled", "vendor")


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its interval and its evidence grade, one of GRADES. Seconds unless its owner says otherwise."""

    value: float
    low: float
    high: float
    grade: str


class ProfileKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a time belongs to. `program` is the structural digest of what was lowered (a block or a fused run of blocks);
    `version` the framework's; `kind` the kind of device (chip and number of cores), so that equal devices share times."""

    program: str
    sizes: tuple[tuple[str, int], ...]
    precision: Precision
    backend: str
    version: str
    kind: str
    threads: int


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


class LinkProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What moving bytes costs between two kinds of device, or within one process: seconds = latency + bytes / bandwidth."""

    source: str
    destination: str
    latency: float
    bandwidth: float
    grade: str
