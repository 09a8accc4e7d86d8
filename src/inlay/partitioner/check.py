"""Whether a partition, perhaps edited by hand, can be carried out: refused by name before anything is lowered or loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inlay.cost import Chain, Evidence, Links, Price, Prices, region_memory
from inlay.errors import PartitionError
from inlay.graph import Block, Program
from inlay.hardware import Cluster
from inlay.partitioner.constraints import parse_pin, pinned_blocks, state_owners
from inlay.partitioner.residency import outside_zones, parse_residency
from inlay.partitioner.search import check_points
from inlay.specs.partition import PARTITION_VERSION, Partition, PlannedRegion
from inlay.specs.profile import Profile, ProfileKey
from inlay.units import format_bytes


def check_partition(
    partition: Partition,
    *,
    program: Program,
    blocks: Sequence[Block],
    cluster: Cluster,
    profiles: Mapping[ProfileKey, Profile] | None = None,
) -> None:
    """Raise PartitionError for the first thing that cannot be: another version or program, blocks without a region or
    with two, an order in which a value is read before it is made, a device that is gone or a backend not allowed there, a
    state in two regions, a broken pin, or a device that cannot hold its regions at the largest point.

    `profiles` tell what was measured of memory; without them it is modelled from the program.
    """
    if partition.version != PARTITION_VERSION:
        raise PartitionError(f"partition version is {partition.version}, expected {PARTITION_VERSION}", hint="make it anew")
    chain = Chain(program=program, blocks=tuple(blocks), points=partition.points)
    _check_program(partition, chain)
    check_points(chain)
    owners = _check_cover(partition, chain)
    _check_order(partition, chain, owners)
    _check_places(partition, cluster)
    _check_states(partition, chain, owners)
    _check_pins(partition, chain, owners)
    _check_zones(partition, chain, owners, cluster)
    _check_transfers(partition, chain)
    _check_memory(partition, chain, cluster, profiles or {})


def _check_program(partition: Partition, chain: Chain) -> None:
    if partition.program != chain.program.digest:
        raise PartitionError(
            f"partition is of program {partition.program[:12]!r}, expected {chain.program.digest[:12]!r} "
            f"({chain.program.name})",
            hint="the module has changed since: make the partition anew",
        )
    if len(partition.blocks) != len(chain.blocks):
        raise PartitionError(f"partition has {len(partition.blocks)} blocks, expected {len(chain.blocks)}", hint="make it anew")
    for planned, block in zip(partition.blocks, chain.blocks, strict=True):
        if planned.digest != block.digest:
            raise PartitionError(
                f"block {planned.name!r} has digest {planned.digest[:12]!r}, expected {block.digest[:12]!r} of {block.name!r}",
                hint="blocks are not edited: make the partition anew",
            )


def _check_cover(partition: Partition, chain: Chain) -> dict[int, PlannedRegion]:
    """The region of every block, each block having exactly one."""
    count = len(chain.blocks)
    owners: dict[int, PlannedRegion] = {}
    names: set[str] = set()
    for region in partition.regions:
        if region.id in names:
            raise PartitionError(f"region {region.id!r} is there twice, expected each id once", hint="rename one")
        names.add(region.id)
        if not 0 <= region.first < region.end <= count:
            raise PartitionError(
                f"region {region.id} has blocks {region.first} to {region.end} (not included), expected 0 to {count}",
                hint="`first` is below `end`",
            )
        for index in range(region.first, region.end):
            other = owners.setdefault(index, region)
            if other is not region:
                raise PartitionError(
                    f"block {index} ({chain.blocks[index].name}) is in regions {other.id} and {region.id}, expected one",
                    hint="let one region end where the other begins",
                )
    missing = [index for index in range(count) if index not in owners]
    if missing:
        raise PartitionError(
            f"block {missing[0]} ({chain.blocks[missing[0]].name}) is in no region, expected exactly one",
            hint="every block runs somewhere",
        )
    return owners


def _check_order(partition: Partition, chain: Chain, owners: Mapping[int, PlannedRegion]) -> None:
    """Regions run in the order in which they are listed; then no two can wait for one another."""
    position = {region.id: number for number, region in enumerate(partition.regions)}
    for crossing in chain.crossings:
        source = owners[crossing.producer]
        for consumer in crossing.consumers:
            reader = owners[consumer]
            if position[reader.id] < position[source.id]:
                raise PartitionError(
                    f"region {reader.id} runs before region {source.id} and reads {crossing.name!r} from it, "
                    "expected an order in which every value is made before it is read",
                    hint=f"list {source.id} before {reader.id}",
                )


def _check_places(partition: Partition, cluster: Cluster) -> None:
    for region in partition.regions:
        if region.device not in cluster.devices:
            raise PartitionError(
                f"region {region.id} is on device {region.device!r}, which is not there; expected one of "
                f"{', '.join(sorted(cluster.devices))}",
                hint="`inlay devices` shows the cluster; make the partition anew or edit the region",
            )
        device = cluster.devices[region.device]
        if not device.allows(region.backend):
            raise PartitionError(
                f"region {region.id} wants {region.backend!r} on {region.device}, expected {list(device.backends or ())}",
                hint="choose one of them, or add it to `backends` of that device",
            )


def _check_states(partition: Partition, chain: Chain, owners: Mapping[int, PlannedRegion]) -> None:
    found = state_owners(chain)
    for name, (first, end) in found.items():
        regions = sorted({owners[index].id for index in range(first, end)})
        if len(regions) > 1:
            raise PartitionError(
                f"state {name!r} is read and written in regions {' and '.join(regions)}, expected one owner",
                hint=f"keep blocks {first} to {end - 1} in one region",
            )
        if partition.states.get(name) != regions[0]:
            raise PartitionError(
                f"state {name!r} belongs to {partition.states.get(name)!r}, expected {regions[0]!r} with its blocks",
                hint="correct `states`",
            )
    strange = sorted(set(partition.states) - set(found))
    if strange:
        raise PartitionError(f"state {strange[0]!r} is not known, expected one of {sorted(found)}", hint="remove it")


def _check_pins(partition: Partition, chain: Chain, owners: Mapping[int, PlannedRegion]) -> None:
    pins = [parse_pin(text) for text in partition.pins]
    for index, pin in pinned_blocks(chain, pins, places=[pin.place for pin in pins]).items():
        region = owners[index]
        if region.place != pin.place:
            raise PartitionError(
                f"block {index} ({chain.blocks[index].name}) is at {region.place} in region {region.id}, expected {pin.place} "
                f"by the pin {str(pin)!r}",
                hint="move the block, or remove the pin",
            )


def _check_zones(partition: Partition, chain: Chain, owners: Mapping[int, PlannedRegion], cluster: Cluster) -> None:
    residencies = [parse_residency(text) for text in partition.zones]
    places = {region.place for region in partition.regions}
    for (index, place), reason in outside_zones(chain, residencies, cluster=cluster, places=places).items():
        if owners[index].place == place:
            raise PartitionError(
                f"block {index} ({chain.blocks[index].name}) is at {place} in region {owners[index].id}: {reason}",
                hint="move the block, or remove it from `zones`",
            )


def _check_transfers(partition: Partition, chain: Chain) -> None:
    names = {region.id for region in partition.regions}
    values = {crossing.name for crossing in chain.crossings}
    for transfer in partition.transfers:
        for end in (transfer.source, transfer.destination):
            if end not in names:
                raise PartitionError(f"transfer of {transfer.value!r} names region {end!r}, expected one of {sorted(names)}")
        if transfer.value not in values:
            raise PartitionError(f"transfer of {transfer.value!r}, expected one of {sorted(values)}", hint="correct its name")


def _check_memory(partition: Partition, chain: Chain, cluster: Cluster, profiles: Mapping[ProfileKey, Profile]) -> None:
    runs = frozenset((region.first, region.end) for region in partition.regions)
    evidence = Evidence(profiles=profiles, failures={}, rooflines={}, runs=runs)
    held: dict[str, list[tuple[str, int]]] = {}
    for region in partition.regions:
        prices = Prices(
            chain,
            cluster=cluster,
            links=Links(cluster),
            evidence=evidence,
            precision=region.precision,
            versions={region.backend: region.version},
        )
        held.setdefault(region.device, []).append((region.id, _region_bytes(chain, region, prices)))
    for device, sizes in held.items():
        capacity, needed = cluster.devices[device].memory, sum(size for _, size in sizes)
        if capacity is not None and needed > capacity:
            names = " and ".join(name for name, _ in sizes)
            raise PartitionError(
                f"{'regions' if len(sizes) > 1 else 'region'} {names} need {format_bytes(needed)} at the largest point, but "
                f"{device} has {format_bytes(capacity)}",
                hint="move blocks to another device, or plan for smaller points",
            )


def _region_bytes(chain: Chain, region: PlannedRegion, prices: Prices) -> int:
    """As it was measured, else as it is modelled; block by block where the region runs so."""
    price = (prices.fused if region.fused else prices.sequence)(region.first, region.end, region.place)
    if isinstance(price, Price):
        return price.memory
    if region.fused:
        return region_memory(chain, region.first, region.end)
    blocks = [(index, prices.block(index, region.place)) for index in range(region.first, region.end)]
    return sum(item.memory if isinstance(item, Price) else region_memory(chain, at, at + 1) for at, item in blocks)
