"""Partition: the whole cut of a program, as data that can be saved, edited, compared and drawn. Nothing in it executes."""

from __future__ import annotations

import msgspec

from inlay.errors import PartitionError
from inlay.hardware import Cluster, Place, convert_document
from inlay.specs.precision import Precision
from inlay.specs.profile import Estimate

PARTITION_VERSION = 1


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """Another place for a region, or for the whole program: its price, or None and why it cannot be."""

    place: str
    seconds: Estimate | None = None
    reason: str = ""


class PlannedRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A run of blocks, `first` to `end` not included, on one place. `seconds` is one pass over all points of the partition.

    `fused` regions are lowered whole, others run their blocks' executables in order. `flops_share` is of the whole
    program; `weights` and `memory` are bytes (memory: weights, workspace, activations and state together).
    """

    id: str
    first: int
    end: int
    device: str
    backend: str
    version: str = ""
    precision: Precision = Precision()
    fused: bool = False
    seconds: Estimate | None = None
    flops_share: float = 0.0
    weights: int = 0
    memory: int = 0
    reason: str = ""
    alternatives: tuple[Alternative, ...] = ()

    @property
    def place(self) -> Place:
        """Where it runs."""
        return Place(self.device, self.backend)


class PlannedTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """One value that goes from the region `source` to another device, where the region `destination` is the first to read
    it: bytes at the largest point, seconds over all points. Each value goes to each device once."""

    value: str
    size: int
    source: str
    destination: str
    seconds: Estimate


class PlannedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """One block as the partition saw it: its name (a module path), structural digest and share of the FLOPs."""

    name: str
    digest: str
    flops_share: float = 0.0


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """What would change the decision: `subject` with `what` ("links", "2 times as fast") would move the blocks that `change`
    names; the objective would come to `value`, a modelled figure. An empty `change`: it was tried, and nothing would move."""

    subject: str
    what: str
    value: float = 0.0
    change: str = ""


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """The decision. `points` are the sizes it was planned for; `value` is that of the `objective` (one of
    specs.goal.OBJECTIVES) for one pass over all of them, `bound` the proven least for the same table of costs, by `method`;
    `figures` the values of all objectives that are known of; `within` the budgets it keeps; `floors` every place that could
    take all of it, or why not.

    The latency is the sum over the regions, the transfers between devices, and the `handovers` between regions of one device.
    `states` names the region that owns each state of the program; `pins` are the hard constraints
    it was given, `zones` the blocks (REGEX=ZONE) that may not leave a trust zone.
    """

    program: str
    name: str
    blocks: tuple[PlannedBlock, ...]
    points: tuple[dict[str, int], ...]
    cluster: Cluster
    regions: tuple[PlannedRegion, ...]
    transfers: tuple[PlannedTransfer, ...] = ()
    handovers: Estimate | None = None
    states: dict[str, str] = {}
    pins: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    objective: str = "latency"
    within: dict[str, float] = {}
    figures: dict[str, Estimate] = {}
    value: Estimate | None = None
    bound: float = 0.0
    gap: float = 0.0
    method: str = ""
    floors: tuple[Alternative, ...] = ()
    reason: str = ""
    unused: tuple[str, ...] = ()
    flips: tuple[Flip, ...] = ()
    seed: int = 0
    version: int = PARTITION_VERSION


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Two partitions of one program to be run in turn: `plan` is shipped for `rival` only if that shows it to be faster."""

    plan: Partition
    rival: Partition


def dump_partition(partition: Partition) -> str:
    """The text of a partition file: JSON with sorted keys, so that two can be compared line by line."""
    return msgspec.json.format(msgspec.json.encode(partition, order="sorted"), indent=2).decode() + "\n"


def parse_partition(text: str | bytes, *, source: str) -> Partition:
    """The partition that a file describes; `source` names it in messages.

    Raises PartitionError for another version, unknown keys (listing the known ones) and values of a wrong type. Whether
    it can be carried out is the matter of `partitioner.check_partition`.
    """
    try:
        raw = msgspec.json.decode(text)
    except msgspec.DecodeError as cause:
        raise PartitionError(f"{source} is not valid JSON: {cause}", hint="see the position named above") from cause
    if not isinstance(raw, dict):
        raise PartitionError(f"{source} is a {type(raw).__name__}, expected an object", hint="is this a partition file?")
    version = raw.get("version", PARTITION_VERSION)
    if version != PARTITION_VERSION:
        raise PartitionError(f"{source}: version is {version!r}, expected {PARTITION_VERSION}", hint="make the partition anew")
    return convert_document(raw, Partition, source=source, error=PartitionError)
