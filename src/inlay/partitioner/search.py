"""The state of one search for a Partition: what is asked of it, what is known, and what was asked for. Without I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from inlay.cost import Chain, Evidence, Links, Prices
from inlay.errors import PartitionError
from inlay.graph import Block, Program
from inlay.hardware import Cluster, Place
from inlay.partitioner.constraints import Pin, glued_cuts, kept_together, pinned_blocks, refused_blocks, state_owners
from inlay.partitioner.rates import rates_of
from inlay.partitioner.residency import Residency, outside_zones
from inlay.specs.capability import Capability
from inlay.specs.goal import Goal
from inlay.specs.partition import Partition, Trial
from inlay.specs.precision import Precision
from inlay.specs.profile import Estimate, Failure, LinkProfile, Profile, ProfileKey, Roofline

Run = tuple[int, int]
Shape = tuple[tuple[int, int, str, bool], ...]
"""What tells two plans apart: first and end block, place, and whether lowered whole, of every region."""
REPAIRS = 3
BEST_FEW = 3
"""So many plans are looked at each time round, and so often at most."""


@dataclass(eq=False)
class Search:
    """One search. Made by `new_search`, changed by `propose` (what it asked for) and `learn` (what it was told) alone."""

    chain: Chain
    cluster: Cluster
    offers: Mapping[Place, Capability]
    versions: Mapping[str, str]
    precision: Precision
    pins: tuple[Pin, ...]
    measurable: frozenset[str]
    links: Links
    rooflines: Mapping[str, Roofline]
    profiles: dict[ProfileKey, Profile]
    failures: dict[ProfileKey, str] = field(default_factory=dict)
    asked: set[ProfileKey] = field(default_factory=set)
    runs: set[Run] = field(default_factory=set)
    repairs: int = REPAIRS
    residencies: tuple[Residency, ...] = ()
    goal: Goal = field(default_factory=Goal)
    trials: dict[tuple[Shape, Shape], Estimate | None] = field(default_factory=dict)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every place offered, in the order of the cluster's devices, then of the backends' names."""
        order = {name: number for number, name in enumerate(self.cluster.devices)}
        return tuple(sorted(self.offers, key=lambda place: (order[place.device], place.backend)))

    @cached_property
    def refused(self) -> dict[tuple[int, Place], str]:
        """Why a block cannot be at a place, where its backend or a residency says so."""
        outside = outside_zones(self.chain, self.residencies, cluster=self.cluster, places=self.places)
        return refused_blocks(self.chain, self.offers) | outside

    @cached_property
    def together(self) -> dict[Place, tuple[Run, ...]]:
        """Runs of blocks that a place's backend keeps as one."""
        return kept_together(self.chain, self.offers)

    @cached_property
    def owners(self) -> dict[str, Run]:
        """The blocks that each state belongs to."""
        return state_owners(self.chain)

    @cached_property
    def glued(self) -> frozenset[int]:
        """Positions at which no plan may cut."""
        return glued_cuts(self.owners)

    @cached_property
    def pinned(self) -> dict[int, Pin]:
        """The pin of every block that has one."""
        return pinned_blocks(self.chain, self.pins, places=self.places)

    def prices(self) -> Prices:
        """The prices as the evidence is now."""
        evidence = Evidence(profiles=self.profiles, failures=self.failures, rooflines=self.rooflines, runs=frozenset(self.runs))
        return Prices(
            self.chain,
            cluster=self.cluster,
            links=self.links,
            evidence=evidence,
            precision=self.precision,
            versions=self.versions,
        )

    def consider(self, first: int, end: int) -> None:
        """From now on look for measurements of this run of blocks as a whole, and of every run like it."""
        if end - first > 1 and (first, end) not in self.runs:
            self.runs.update(self.chain.alike(first, end))


def new_search(
    program: Program,
    blocks: Sequence[Block],
    *,
    cluster: Cluster,
    points: Sequence[Mapping[str, int]],
    offers: Mapping[Place, Capability],
    versions: Mapping[str, str] | None = None,
    precision: Precision = Precision(),
    pins: Sequence[Pin] = (),
    profiles: Mapping[ProfileKey, Profile] | None = None,
    links: Iterable[LinkProfile] = (),
    rooflines: Iterable[Roofline] = (),
    measurable: Collection[str] | None = None,
    repairs: int = REPAIRS,
    residencies: Sequence[Residency] = (),
    goal: Goal = Goal(),
) -> Search:
    """Begin a search for the cut that is best for a goal, by default the least latency of one pass over all `points`.

    `offers` are the places that may be used with what their backends support; `versions` the framework versions by
    backend; `measurable` the devices that can be timed here (None = all): others are priced by what `profiles` hold, or
    by their roofline. `repairs` is how often the best plans' regions are measured and the search is done again.
    Raises PartitionError for pins, points or blocks that cannot be, ClusterError for a device that is not there.
    """
    chain = Chain(program=program, blocks=tuple(blocks), points=tuple(dict(point) for point in points))
    check_points(chain)
    if not blocks:
        raise PartitionError(f"program {program.name!r} has no blocks, expected at least one", hint="it computes nothing")
    if not offers:
        raise PartitionError("no place is offered, expected at least one DEVICE/BACKEND", hint="`inlay devices` shows them")
    for place in offers:
        if not cluster.device(place.device).allows(place.backend):
            allowed = ", ".join(cluster.device(place.device).backends or ())
            raise PartitionError(
                f"place {place} is not allowed, {place.device} takes one of: {allowed}", hint="see `backends` of the device"
            )
    search = Search(
        chain=chain,
        cluster=cluster,
        offers=dict(offers),
        versions=dict(versions or {}),
        precision=precision,
        pins=tuple(pins),
        measurable=frozenset(cluster.devices if measurable is None else measurable),
        links=Links(cluster, links),
        rooflines={item.kind: item for item in rooflines},
        profiles=dict(profiles or {}),
        repairs=repairs,
        residencies=tuple(residencies),
        goal=goal,
    )
    rates_of(cluster, tuple(dict.fromkeys(place.device for place in search.places)), goal)
    _ = search.pinned, search.refused, search.owners, chain.crossings  # what cannot be is told now
    search.consider(0, len(chain.blocks))
    return search


def learn(search: Search, profiles: Iterable[Profile], failures: Iterable[Failure] = ()) -> None:
    """Take in what was measured and what failed; a failed lowering is "unsupported here" from now on, with its reason."""
    for profile in profiles:
        search.profiles[profile.key] = profile
        search.failures.pop(profile.key, None)
    for failure in failures:
        if failure.key not in search.profiles:
            search.failures[failure.key] = failure.reason


def learn_trial(search: Search, trial: Trial, ratio: Estimate | None) -> None:
    """Take in how long the plan took as a share of its rival's time, run in turn; None where it could not be run."""
    search.trials[partition_shape(trial.plan), partition_shape(trial.rival)] = ratio


def partition_shape(partition: Partition) -> Shape:
    """What tells a partition apart from others of the same program."""
    return tuple(
        (region.first, region.end, str(region.place), region.fused and region.end - region.first > 1)
        for region in sorted(partition.regions, key=lambda region: region.first)
    )


def check_points(chain: Chain) -> None:
    """Raise PartitionError unless every point gives every symbol of the program a size within its range."""
    if not chain.points:
        raise PartitionError(
            "no point is given, expected at least one size for each symbol", hint="an empty one if all is fixed"
        )
    symbols = chain.program.ranges
    for point in chain.points:
        for name, (low, high) in symbols.items():
            if name not in point or not low <= point[name] <= high:
                raise PartitionError(
                    f"point {point} has {name} = {point.get(name, 'nothing')}, expected a size from {low} to {high}",
                    hint="give a size for every symbol of the program",
                )
