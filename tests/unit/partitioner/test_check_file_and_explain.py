"""A partition on paper: written, read, edited, checked against what there is, and told in words."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chain_world import Bench, make_cluster, make_program, offer, search_through

from inlay.errors import PartitionError
from inlay.hardware import Cluster, Place
from inlay.partitioner import check_partition, explain, new_search, parse_pin
from inlay.specs.partition import Partition, PlannedTransfer, dump_partition, parse_partition
from inlay.specs.profile import Estimate

CPU, NPU = Place("cpu:0", "openvino"), Place("npu:0", "onnxruntime")
SECONDS = {"openvino": [1.0, 1.0, 9.0, 9.0], "onnxruntime": [9.0, 9.0, 1.0, 1.0]}
PROGRAM, BLOCKS = make_program(4)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster({"cpu:0": None, "npu:0": 2**30, "spare:0": None})


@pytest.fixture(scope="module")
def partition(cluster: Cluster) -> Partition:
    offers = {CPU: offer(PROGRAM, "openvino", refused={"mm_3": "no such kernel"}), NPU: offer(PROGRAM, "onnxruntime")}
    search = new_search(
        PROGRAM,
        BLOCKS,
        cluster=cluster,
        points=[{"B": 1}, {"B": 8}],
        offers=offers,
        versions={"openvino": "2026.4", "onnxruntime": "1.32"},
        pins=[parse_pin(r"layers\.0=cpu:0/openvino")],
    )
    return search_through(search, Bench(SECONDS))


def test_a_partition_is_read_back_equal_and_its_keys_are_sorted(partition: Partition) -> None:
    text = dump_partition(partition)
    assert parse_partition(text, source="plan.json") == partition
    assert dump_partition(parse_partition(text, source="plan.json")) == text
    raw = json.loads(text)
    assert list(raw) == sorted(raw) and list(raw["regions"][0]) == sorted(raw["regions"][0])
    assert "eval" not in text and raw["regions"][0]["version"] == "2026.4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "version is 7, expected 1"),
        ({"colour": "red"}, r"unknown key 'colour' in the top level, expected one of \['blocks', 'bound'"),
        ({"points": [{"B": "many"}]}, r"points\[0\].* is .*'many'"),
    ],
)
def test_a_file_of_another_version_or_with_strange_keys_is_refused(partition: Partition, change, message: str) -> None:
    raw = {**json.loads(dump_partition(partition)), **change}
    with pytest.raises(PartitionError, match=message):
        parse_partition(json.dumps(raw), source="plan.json")


def test_a_strange_key_in_a_region_names_the_region_and_the_known_keys(partition: Partition) -> None:
    raw = json.loads(dump_partition(partition))
    raw["regions"][1]["devise"] = "npu:0"
    with pytest.raises(PartitionError, match=r"unknown key 'devise' in regions\[1\], expected one of .*'device'"):
        parse_partition(json.dumps(raw), source="plan.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_what_is_no_partition_is_refused(text: str) -> None:
    with pytest.raises(PartitionError, match=r"plan\.json is"):
        parse_partition(text, source="plan.json")


def refused(partition: Partition, message: str, *, cluster: Cluster, program=PROGRAM, blocks=BLOCKS, **change: object) -> None:
    with pytest.raises(PartitionError, match=message):
        check_partition(msgspec.structs.replace(partition, **change), program=program, blocks=blocks, cluster=cluster)


def test_the_answer_of_the_search_passes_its_own_check(partition: Partition, cluster: Cluster) -> None:
    check_partition(partition, program=PROGRAM, blocks=BLOCKS, cluster=cluster)


def test_a_device_that_is_gone_is_named_with_its_region(partition: Partition) -> None:
    rest = make_cluster({"cpu:0": None, "spare:0": None})
    refused(partition, r"region r1 is on device 'npu:0', which is not there; expected one of cpu:0, spare:0", cluster=rest)


def test_a_backend_that_its_device_does_not_allow_is_refused(partition: Partition, cluster: Cluster) -> None:
    strict = msgspec.structs.replace(cluster.devices["npu:0"], backends=("openvino",))
    narrow = msgspec.structs.replace(cluster, devices={**cluster.devices, "npu:0": strict})
    refused(partition, r"region r1 wants 'onnxruntime' on npu:0, expected \['openvino'\]", cluster=narrow)


def test_an_edit_that_breaks_a_pin_is_refused_with_the_pin(partition: Partition, cluster: Cluster) -> None:
    whole = msgspec.structs.replace(partition.regions[1], first=0)
    message = r"block 0 \(layers\.0\) is at npu:0/onnxruntime in region r1, expected cpu:0/openvino by the pin"
    refused(partition, message, cluster=cluster, regions=(whole,), transfers=())


def test_another_program_other_blocks_and_other_points_are_refused(partition: Partition, cluster: Cluster) -> None:
    other, other_blocks = make_program(5)
    refused(partition, "partition is of program", cluster=cluster, program=other, blocks=other_blocks)
    refused(partition, "has 4 blocks, expected 3", cluster=cluster, blocks=BLOCKS[:3])
    changed = (*partition.blocks[:3], msgspec.structs.replace(partition.blocks[3], digest="0" * 64))
    with pytest.raises(PartitionError, match=r"block 'layers\.3' has digest '000000000000'"):
        check_partition(msgspec.structs.replace(partition, blocks=changed), program=PROGRAM, blocks=BLOCKS, cluster=cluster)
    refused(partition, "B = 9999, expected a size from 1 to 64", cluster=cluster, points=({"B": 9999},))
    refused(partition, "version is 2, expected 1", cluster=cluster, version=2)


def test_names_that_are_twice_or_unknown_are_refused(partition: Partition, cluster: Cluster) -> None:
    same = tuple(msgspec.structs.replace(region, id="r0") for region in partition.regions)
    refused(partition, "region 'r0' is there twice", cluster=cluster, regions=same)
    exact = Estimate(value=0.0, low=0.0, high=0.0, grade="measured")
    lost = PlannedTransfer(value="mm_1", size=1, source="r0", destination="r9", seconds=exact)
    refused(partition, "transfer of 'mm_1' names region 'r9'", cluster=cluster, transfers=(lost,))
    strange = msgspec.structs.replace(lost, value="mm_9", destination="r1")
    refused(partition, "transfer of 'mm_9', expected one of", cluster=cluster, transfers=(strange,))
    refused(partition, "state 'kv' is not known", cluster=cluster, states={"kv": "r0"})


def test_the_explanation_says_where_why_what_else_and_how_sure(partition: Partition) -> None:
    text = explain(partition)
    for wanted in (
        "chain: 4 blocks in 2 regions on 2 devices",
        "for one pass over 2 points: B=1; B=8",
        "gap 0.0 %",
        "the optimum of this table of costs",
        "0-1 layers.0 .. layers.1",
        "cpu:0/openvino",
        "50.0 %",
        r"why: pinned here by 'layers\.0=cpu:0/openvino'",
        "no such kernel",
        "transfers between devices:",
        "mm_1",
        "r0 to r1",
        "floors (all of it at one place):",
        r"pin: layers\.0=cpu:0/openvino",
        "unused: spare:0",
    ):
        assert wanted in text, wanted
    assert "measured" in text and "vendor" in text
    assert all(line == line.rstrip() for line in text.splitlines())
