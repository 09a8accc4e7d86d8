"""What a search ships for throughput, cost and energy, and under budgets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chain_world import Bench, make_cluster, make_program, offer, search_through

from inlay.errors import PartitionError
from inlay.hardware import Node, Place
from inlay.partitioner import Search, check_partition, explain, new_search, parse_residency
from inlay.specs.goal import Goal
from inlay.specs.partition import Partition, dump_partition, parse_partition

FAST, SLOW = Place("npu:0", "onnxruntime"), Place("cpu:0", "openvino")
SECONDS = {"openvino": [0.2] * 6, "onnxruntime": [0.1] * 6}


def search_for(goal: Goal, *, price: Mapping[str, float] | None = None, power: Mapping[str, float] | None = None) -> Search:
    program, blocks = make_program(6)
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    devices = {
        name: msgspec.structs.replace(device, price=(price or {}).get(name), power=(power or {}).get(name))
        for name, device in cluster.devices.items()
    }
    cluster = msgspec.structs.replace(cluster, devices=devices)
    offers = {place: offer(program, place.backend) for place in (SLOW, FAST)}
    return new_search(program, blocks, cluster=cluster, points=[{"B": 8}], offers=offers, goal=goal)


def places(partition: Partition) -> list[str]:
    return [str(region.place) for region in partition.regions]


def test_a_stream_uses_both_devices_where_one_pass_uses_the_faster_one_alone() -> None:
    bench = Bench(SECONDS)
    alone = search_through(search_for(Goal()), bench)
    assert places(alone) == [str(FAST)]
    stream = search_through(search_for(Goal(objective="throughput")), Bench(SECONDS))
    assert set(places(stream)) == {str(FAST), str(SLOW)}
    assert stream.objective == "throughput" and stream.value is not None and alone.value is not None
    assert 0.4 <= stream.value.value < 0.41 and stream.value.value < alone.value.value
    assert stream.figures["latency"].value > alone.value.value
    assert stream.bound == pytest.approx(stream.value.value, rel=1e-5) and "mixed-integer" in stream.method
    assert "throughput: 4" in explain(stream) and "latency: 8" in explain(stream)


def test_the_cheaper_device_takes_all_unless_a_budget_forbids_it() -> None:
    price = {"npu:0": 36.0, "cpu:0": 3.6}  # a cent and a tenth of one a second
    cheap = search_through(search_for(Goal(objective="cost"), price=price), Bench(SECONDS))
    assert places(cheap) == [str(SLOW)]
    assert cheap.value is not None and cheap.value.value == pytest.approx(1.2 * 0.001)
    assert cheap.floors[1].reason == "cost $0.006"
    quick = search_through(search_for(Goal(objective="cost", within={"latency": 0.95}), price=price), Bench(SECONDS))
    assert set(places(quick)) == {str(FAST), str(SLOW)}
    assert quick.figures["latency"].value <= 0.95 * (1 + 1e-6)
    assert any("its latency would be 1.20 s, over the budget of 950.0 ms" in floor.reason for floor in quick.floors)
    assert parse_partition(dump_partition(quick), source="here") == quick
    assert "within 950.0 ms" in explain(quick)


def test_energy_goes_to_the_device_that_takes_less() -> None:
    power = {"npu:0": 10.0, "cpu:0": 100.0}
    frugal = search_through(search_for(Goal(objective="energy"), power=power), Bench(SECONDS))
    assert places(frugal) == [str(FAST)]
    assert frugal.value is not None and frugal.value.value == pytest.approx(6.0)


def test_a_budget_that_nothing_keeps_is_told_with_the_least_there_is() -> None:
    with pytest.raises(PartitionError, match=r"latency is at least 600\.0 ms of 500\.0 ms allowed"):
        search_through(search_for(Goal(objective="throughput", within={"latency": 0.5})), Bench(SECONDS))


def test_a_price_that_is_not_known_is_told() -> None:
    with pytest.raises(PartitionError, match="cost was asked for and device cpu:0 has no price"):
        search_for(Goal(objective="cost"))
    with pytest.raises(PartitionError, match="energy was asked for and device npu:0 has no power"):
        search_for(Goal(within={"energy": 1.0}), power={"cpu:0": 3.0})


def zoned(*residencies: str, zones: tuple[str, str] = ("eu", "us")) -> Search:
    program, blocks = make_program(6)
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    nodes = {zone: Node(name=zone, zone=zone) for zone in zones}
    devices = {
        name: msgspec.structs.replace(device, node=zone)
        for (name, device), zone in zip(cluster.devices.items(), zones, strict=True)
    }
    cluster = msgspec.structs.replace(cluster, nodes=nodes, devices=devices)
    offers = {place: offer(program, place.backend) for place in (SLOW, FAST)}
    held = [parse_residency(text) for text in residencies]
    return new_search(program, blocks, cluster=cluster, points=[{"B": 8}], offers=offers, residencies=held)


def test_blocks_that_may_not_leave_a_zone_stay_in_it() -> None:
    partition = search_through(zoned(r"layers\.[0-2]$=eu"), Bench(SECONDS))
    assert [(region.first, region.end, region.device) for region in partition.regions] == [(0, 3, "cpu:0"), (3, 6, "npu:0")]
    assert "it must stay in zone 'eu', and npu:0 is in zone 'us'" in partition.floors[1].reason
    assert "stays in its zone: layers" in explain(partition)
    program, blocks = make_program(6)
    moved = tuple(
        msgspec.structs.replace(region, device="npu:0", backend="onnxruntime") if region.first == 0 else region
        for region in partition.regions
    )
    edited = msgspec.structs.replace(partition, regions=moved, transfers=())
    with pytest.raises(PartitionError, match=r"block 0 .* is at npu:0/onnxruntime in region r0: it must stay in zone 'eu'"):
        check_partition(edited, program=program, blocks=blocks, cluster=partition.cluster)


def test_a_zone_that_is_not_there_and_a_pattern_that_matches_nothing_are_told() -> None:
    with pytest.raises(PartitionError, match="names zone 'asia', expected one of: eu, us"):
        zoned("layers=asia")
    with pytest.raises(PartitionError, match="matches no block"):
        zoned("decoder=eu")
    with pytest.raises(PartitionError, match="residency is 'layers', expected REGEX=ZONE"):
        parse_residency("layers")
