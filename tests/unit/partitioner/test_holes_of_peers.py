"""Holes that other partitioners have, each tried here: cyclic wholes, unused devices, memory, double owners, fragments."""

from __future__ import annotations

import graphlib
import random
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chain_world import WEIGHT, Bench, make_cluster, make_program, offer, search_through

from inlay.cost import Chain
from inlay.errors import OutOfMemoryError, PartitionError
from inlay.graph import Block, Program, State, Tensor
from inlay.hardware import Place
from inlay.partitioner import check_partition, new_search, parse_pin
from inlay.specs.partition import Partition, PlannedRegion

CPU, NPU, GPU = Place("cpu:0", "openvino"), Place("npu:0", "onnxruntime"), Place("gpu:0", "tensorrt")
SPOTS = (CPU, NPU, GPU)


def partition_of(program: Program, blocks: tuple[Block, ...], seconds, *, memory=None, refused=None, points=None, **options):
    cluster = make_cluster(memory or {place.device: None for place in SPOTS}, bandwidth=1e12, latency=1e-9)
    offers = {
        place: offer(program, place.backend, refused=(refused or {}).get(place.backend))
        for place in SPOTS
        if place.device in cluster.devices
    }
    search = new_search(program, blocks, cluster=cluster, points=points or [{"B": 8}], offers=offers, **options)
    return search_through(search, Bench(seconds, noise=0.0)), cluster


def region_of(partition: Partition) -> dict[int, PlannedRegion]:
    return {block: region for region in partition.regions for block in range(region.first, region.end)}


@pytest.mark.parametrize("seed", range(25))
def test_hole_06_the_quotient_graph_of_every_partition_is_acyclic(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(3, 9)
    pairs = [(one, two) for one in range(count) for two in range(one + 2, count)]
    program, blocks = make_program(count, skips=chance.sample(pairs, min(len(pairs), chance.randint(1, 6))))
    seconds = {place.backend: [chance.choice((0.1, 1.0, 3.0)) for _ in range(count)] for place in SPOTS}
    partition, cluster = partition_of(program, blocks, seconds)
    owners = region_of(partition)
    graph: dict[str, set[str]] = {region.id: set() for region in partition.regions}
    for block in blocks:
        for maker in blocks[: block.index]:
            if set(block.inputs) & set(maker.outputs) and owners[block.index].id != owners[maker.index].id:
                graph[owners[block.index].id].add(owners[maker.index].id)
    assert list(graphlib.TopologicalSorter(graph).static_order())
    check_partition(partition, program=program, blocks=blocks, cluster=cluster)


def test_hole_06_a_hand_edited_order_that_makes_regions_wait_for_each_other_is_refused_by_name() -> None:
    program, blocks = make_program(4)
    seconds = {"openvino": [1.0, 1.0, 9.0, 9.0], "onnxruntime": [9.0, 9.0, 1.0, 1.0], "tensorrt": [9.0] * 4}
    partition, cluster = partition_of(program, blocks, seconds)
    turned = msgspec.structs.replace(partition, regions=partition.regions[::-1])
    with pytest.raises(PartitionError, match="region r1 runs before region r0 and reads 'mm_1' from it"):
        check_partition(turned, program=program, blocks=blocks, cluster=cluster)


def test_hole_10_an_unused_device_is_named_and_a_pin_or_a_list_of_devices_is_hard() -> None:
    program, blocks = make_program(4)
    seconds = {"openvino": [1.0] * 4, "onnxruntime": [2.0] * 4, "tensorrt": [0.1] * 4}
    partition, _ = partition_of(program, blocks, seconds, memory={"cpu:0": None, "npu:0": None})
    assert {region.device for region in partition.regions} == {"cpu:0"}
    assert partition.unused == ("npu:0",)
    pinned, _ = partition_of(
        program, blocks, seconds, memory={"cpu:0": None, "npu:0": None}, pins=[parse_pin(r"layers\.[23]\.=npu:0/onnxruntime")]
    )
    assert {region.device for region in pinned.regions} == {"cpu:0", "npu:0"} and pinned.unused == ()
    owners = region_of(pinned)
    assert owners[2].device == owners[3].device == "npu:0"


def test_hole_11_memory_counts_weights_activations_workspace_and_state_at_the_largest_point() -> None:
    program, blocks = make_program(2, states={"cache": (0, 0)})
    activation, state = 4 * 64 * 64, 2 * 4 * 64 * 64  # at B = 64; a state has a copy before and one after
    workspace = 10 * activation
    by_block = [WEIGHT + 2 * activation + state, WEIGHT + 2 * activation]
    seconds = {"openvino": [1.0, 1.0]}
    points = [{"B": 1}, {"B": 64}]
    held = sum(by_block)
    fits, _ = partition_of(program, blocks, seconds, memory={"cpu:0": held}, points=points)
    assert sum(region.memory for region in fits.regions) <= held
    with pytest.raises(OutOfMemoryError, match=r"needs .* on cpu:0, which has"):
        partition_of(program, blocks, seconds, memory={"cpu:0": 2 * WEIGHT}, points=points)
    small, _ = partition_of(program, blocks, seconds, memory={"cpu:0": 3 * WEIGHT}, points=[{"B": 1}])
    assert len(small.regions) == 1
    offers = {CPU: offer(program, "openvino")}
    cluster = make_cluster({"cpu:0": held})
    search = new_search(program, blocks, cluster=cluster, points=points, offers=offers)
    with pytest.raises(OutOfMemoryError, match="no cut of 'chain' fits"):
        search_through(search, Bench(seconds, memory=workspace))


def test_hole_11_a_hand_edited_plan_that_overflows_a_device_names_it_with_both_figures() -> None:
    program, blocks = make_program(4)
    seconds = {"openvino": [1.0, 1.0, 9.0, 9.0], "onnxruntime": [9.0, 9.0, 1.0, 1.0]}
    room = 3 * (WEIGHT + 2 * 4 * 64 * 8)
    partition, cluster = partition_of(program, blocks, seconds, memory={"cpu:0": room, "npu:0": room})
    check_partition(partition, program=program, blocks=blocks, cluster=cluster)
    everything = msgspec.structs.replace(partition.regions[0], end=4, fused=False)
    moved = msgspec.structs.replace(partition, regions=(everything,), transfers=())
    with pytest.raises(PartitionError, match=r"region r0 need .* at the largest point, but cpu:0 has"):
        check_partition(moved, program=program, blocks=blocks, cluster=cluster)


@pytest.mark.parametrize("seed", range(10))
def test_hole_12_every_node_weight_and_state_has_exactly_one_region(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(3, 8)
    first = chance.randrange(count)
    states = {"memory": (first, min(count - 1, first + chance.randint(0, 2)))}
    program, blocks = make_program(count, states=states)
    seconds = {place.backend: [chance.choice((0.1, 1.0, 3.0)) for _ in range(count)] for place in SPOTS}
    partition, _ = partition_of(program, blocks, seconds)
    nodes = [name for region in partition.regions for block in blocks[region.first : region.end] for name in block.nodes]
    assert sorted(nodes) == sorted(node.name for node in program.nodes)
    weights = [name for region in partition.regions for block in blocks[region.first : region.end] for name in block.weights]
    assert sorted(weights) == sorted(program.weights)
    owner = next(region for region in partition.regions if region.id == partition.states["memory"])
    assert owner.first <= states["memory"][0] and states["memory"][1] < owner.end


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 2), (1, 4)], r"block 1 \(layers\.1\) is in regions r0 and r1, expected one"),
        ([(0, 2), (3, 4)], r"block 2 \(layers\.2\) is in no region"),
        ([(0, 5)], r"region r0 has blocks 0 to 5 \(not included\), expected 0 to 4"),
        ([(0, 4), (4, 4)], r"region r1 has blocks 4 to 4"),
    ],
)
def test_hole_12_a_hand_edited_plan_with_a_block_twice_or_nowhere_is_refused(spans, message: str) -> None:
    program, blocks = make_program(4)
    partition, cluster = partition_of(program, blocks, {place.backend: [1.0] * 4 for place in SPOTS})
    regions = tuple(
        PlannedRegion(id=f"r{number}", first=first, end=end, device="cpu:0", backend="openvino")
        for number, (first, end) in enumerate(spans)
    )
    with pytest.raises(PartitionError, match=message):
        check_partition(msgspec.structs.replace(partition, regions=regions), program=program, blocks=blocks, cluster=cluster)


def test_hole_12_a_state_cut_in_two_by_hand_is_refused_by_its_name() -> None:
    program, blocks = make_program(4, states={"memory": (1, 2)})
    partition, cluster = partition_of(program, blocks, {place.backend: [1.0] * 4 for place in SPOTS})
    regions = tuple(
        PlannedRegion(id=name, first=first, end=end, device="cpu:0", backend="openvino")
        for name, first, end in (("front", 0, 2), ("rest", 2, 4))
    )
    edited = msgspec.structs.replace(partition, regions=regions)
    with pytest.raises(
        PartitionError, match="state 'memory' is read and written in regions front and rest, expected one owner"
    ):
        check_partition(edited, program=program, blocks=blocks, cluster=cluster)
    whole = msgspec.structs.replace(partition, states={"memory": "r7"})
    with pytest.raises(PartitionError, match="state 'memory' belongs to 'r7', expected 'r0'"):
        check_partition(whole, program=program, blocks=blocks, cluster=cluster)


@pytest.mark.parametrize(("first", "end", "cuts"), [(0, 0, 0), (3, 4, 2), (2, 5, 2), (0, 2, 1), (6, 8, 1)])
def test_hole_14_there_are_no_more_regions_than_intended_cuts_and_one(first: int, end: int, cuts: int) -> None:
    program, blocks = make_program(8)
    refused = {f"mm_{index}": "unknown operator" for index in range(first, end)}
    seconds = {"openvino": [1.0] * 8, "onnxruntime": [5.0] * 8}
    partition, _ = partition_of(program, blocks, seconds, memory={"cpu:0": None, "npu:0": None}, refused={"openvino": refused})
    assert len(partition.regions) == cuts + 1


def test_hole_14_many_small_gains_do_not_pay_for_as_many_boundaries() -> None:
    program, blocks = make_program(8)
    seconds = {"openvino": [1e-3, 1.01e-3] * 4, "onnxruntime": [1.01e-3, 1e-3] * 4}
    cluster = make_cluster({"cpu:0": None, "npu:0": None}, latency=1e-4)
    offers = {place: offer(program, place.backend) for place in (CPU, NPU)}
    search = new_search(program, blocks, cluster=cluster, points=[{"B": 8}], offers=offers)
    assert len(search_through(search, Bench(seconds, noise=0.0)).regions) == 1


def test_a_value_that_two_later_devices_read_goes_to_each_once() -> None:
    program, blocks = make_program(4, skips=[(0, 2), (0, 3)])
    seconds = {"openvino": [1.0, 9.0, 9.0, 9.0], "onnxruntime": [9.0, 1.0, 1.0, 1.0], "tensorrt": [9.0] * 4}
    partition, _ = partition_of(program, blocks, seconds)
    assert [(item.value, item.source, item.destination) for item in partition.transfers] == [("mm_0", "r0", "r1")]


def test_a_chain_of_one_value_knows_what_crosses() -> None:
    program, blocks = make_program(3)
    chain = Chain(program=program, blocks=blocks, points=({"B": 2}, {"B": 4}))
    assert [(item.name, item.producer, item.consumers, item.sizes) for item in chain.crossings] == [
        ("mm_0", 0, (1,), (512, 1024)),
        ("mm_1", 1, (2,), (512, 1024)),
    ]


def test_a_state_that_no_block_touches_is_an_error() -> None:
    program, blocks = make_program(2)
    strange = msgspec.structs.replace(
        program,
        states=(State(name="lost", input="lost_in", output="lost_out"),),
        inputs={**program.inputs, "lost_in": Tensor(dtype="float32", shape=(2,))},
    )
    cluster = make_cluster({"cpu:0": None})
    with pytest.raises(PartitionError, match="state 'lost' is read and written by no block"):
        new_search(strange, blocks, cluster=cluster, points=[{"B": 1}], offers={CPU: offer(strange, "openvino")})
