"""What would change the decision: every claim is held against a search of its own in which that change was made."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chain_world import Bench, make_cluster, make_program, offer, search_through

from inlay.hardware import Place
from inlay.partitioner import explain, new_search
from inlay.partitioner.flips import FACTORS
from inlay.specs.goal import Goal
from inlay.specs.partition import Flip, Partition, dump_partition, parse_partition
from inlay.units import Bytes

CPU, NPU = Place("cpu:0", "openvino"), Place("npu:0", "onnxruntime")
SPLIT = {"openvino": [1.0, 1.0, 1.0, 1.6, 1.6, 1.6], "onnxruntime": [1.6, 1.6, 1.6, 1.0, 1.0, 1.0]}


def planned(
    seconds: Mapping[str, list[float]],
    *,
    latency: float = 1e-4,
    memory: int | None = None,
    price: Mapping[str, float] | None = None,
    goal: Goal = Goal(),
    bias: float = 1.0,
) -> Partition:
    program, blocks = make_program(6)
    cluster = make_cluster({"cpu:0": None, "npu:0": None}, latency=latency)
    devices = {
        name: msgspec.structs.replace(
            device,
            price=(price or {}).get(name),
            memory=None if memory is None or name == "npu:0" else Bytes(memory),
        )
        for name, device in cluster.devices.items()
    }
    cluster = msgspec.structs.replace(cluster, devices=devices)
    offers = {place: offer(program, place.backend) for place in (CPU, NPU)}
    search = new_search(program, blocks, cluster=cluster, points=[{"B": 8}], offers=offers, goal=goal)
    return search_through(search, Bench(seconds, bias=bias))


def places(partition: Partition) -> list[str]:
    return [str(region.place) for region in partition.regions for _ in range(region.first, region.end)]


def flip(partition: Partition, subject: str) -> Flip:
    return next(item for item in partition.flips if item.subject == subject)


def factor_of(text: str) -> float:
    return next(factor for factor in FACTORS if f"{factor:g} " in f"{text} ")


def test_a_faster_link_would_split_what_a_slow_one_keeps_together() -> None:
    slow = planned(SPLIT, latency=2.4)  # a split saves 1.8 s
    assert len(set(places(slow))) == 1
    found = flip(slow, "links between devices")
    factor = factor_of(found.what)
    assert found.change == "3-5 to npu:0/onnxruntime"
    quicker = planned(SPLIT, latency=2.4 / factor)  # its bound is the least of the table, noise or not
    assert found.value == pytest.approx(quicker.bound, rel=1e-3)
    assert len(set(places(planned(SPLIT, latency=2.4 / 10)))) == 2
    less = max((item for item in FACTORS if item < factor), default=1.0)
    assert planned(SPLIT, latency=2.4 / less).bound > 7.8 * 0.99  # what one place takes
    assert f"links between devices:  {found.what}" in explain(slow)


def test_a_device_is_told_by_how_much_it_would_have_to_be_faster() -> None:
    seconds = {"openvino": [1.0] * 6, "onnxruntime": [1.9] * 6}
    partition = planned(seconds)
    assert places(partition) == [str(CPU)] * 6
    found = flip(partition, "npu:0")
    assert found.what == "2 times as fast" and found.change == "0-5 to npu:0/onnxruntime"
    assert flip(partition, "cpu:0").change == "" and "not: " in explain(partition)
    assert places(planned({**seconds, "onnxruntime": [1.9 / 2] * 6})) == [str(NPU)] * 6
    assert places(planned({**seconds, "onnxruntime": [1.9 / 1.5] * 6})) == [str(CPU)] * 6


def test_memory_that_would_be_enough_is_named_and_is() -> None:
    seconds = {"openvino": [1.0] * 6, "onnxruntime": [3.0] * 6}
    tight = planned(seconds, memory=100_000)
    assert len(set(places(tight))) == 2
    memory = next(item for item in tight.flips if "memory" in item.what)
    assert memory.subject == "cpu:0" and memory.what == "108.0 KiB of memory instead of 97.7 KiB"
    assert memory.change == "0 to cpu:0/openvino"
    roomy = planned(seconds, memory=108 * 1024)
    assert places(roomy) == [str(CPU)] * 6 and roomy.value is not None
    assert memory.value == pytest.approx(roomy.value.value)
    assert [item.what for item in roomy.flips if "memory" in item.what] == ["any more memory"]


def test_a_price_at_which_the_other_device_would_be_taken() -> None:
    seconds = {"openvino": [1.0] * 6, "onnxruntime": [1.0] * 6}
    cost = Goal(objective="cost")
    partition = planned(seconds, price={"cpu:0": 1.0, "npu:0": 3.0}, goal=cost)
    assert places(partition) == [str(CPU)] * 6
    found = next(item for item in partition.flips if item.subject == "npu:0" and "price" in item.what)
    assert found.what == "price divided by 4" and found.change == "0-5 to npu:0/onnxruntime"
    assert places(planned(seconds, price={"cpu:0": 1.0, "npu:0": 3.0 / 4}, goal=cost)) == [str(NPU)] * 6
    assert places(planned(seconds, price={"cpu:0": 1.0, "npu:0": 3.0 / 2}, goal=cost)) == [str(CPU)] * 6


def test_a_stream_is_asked_too_and_files_keep_what_was_found() -> None:
    seconds = {"openvino": [0.2] * 6, "onnxruntime": [0.1] * 6}
    stream = planned(seconds, goal=Goal(objective="throughput"))
    assert stream.flips and flip(stream, "npu:0").change
    assert parse_partition(dump_partition(stream), source="here") == stream


def test_nothing_is_claimed_where_a_trial_decided_against_the_table() -> None:
    seconds = {"openvino": [1.0, 1.0, 1.0, 1.1, 1.1, 1.1], "onnxruntime": [1.1, 1.1, 1.1, 1.0, 1.0, 1.0]}
    assert planned(seconds).flips
    tried = planned(seconds, bias=1.2)
    assert "ties go to one place" in tried.reason
    assert tried.flips == ()


def test_a_plan_that_is_no_better_than_the_one_shipped_is_no_change() -> None:
    tight = planned({"openvino": [1.0] * 6, "onnxruntime": [3.0] * 6}, memory=100_000)  # any one block may be the one elsewhere
    assert flip(tight, "cpu:0").change == ""
    assert flip(tight, "npu:0").what == "4 times as fast"  # 0.75 s a block there, which is better than 1 s here
