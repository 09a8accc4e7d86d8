"""A partition as a drawing, and two of them compared."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chain_world import Bench, make_cluster, make_program, offer, places, search_through

from inlay.errors import PartitionError
from inlay.partitioner import difference, draw, new_search, parse_pin
from inlay.partitioner.drawing import BOX, LANE, LEFT, TOP, WIDTH
from inlay.specs.partition import Partition

SPOTS = places("cpu:0/openvino", "npu:0/onnxruntime")
SPACE = "{http://www.w3.org/2000/svg}"


def planned(*, pins: tuple[str, ...] = (), count: int = 6) -> Partition:
    program, blocks = make_program(count)
    seconds = {"openvino": [1.0] * 3 + [9.0] * (count - 3), "onnxruntime": [9.0] * 3 + [1.0] * (count - 3)}
    search = new_search(
        program,
        blocks,
        cluster=make_cluster({"cpu:0": None, "npu:0": None, "gpu:0": None}),
        points=[{"B": 8}],
        offers={place: offer(program, place.backend) for place in SPOTS},
        pins=[parse_pin(text) for text in pins],
    )
    return search_through(search, Bench(seconds, memory=1 << 20))


def test_every_region_is_a_box_on_its_devices_lane_as_long_as_its_time() -> None:
    plan = planned()
    drawn = ElementTree.fromstring(draw(plan))
    boxes = {
        (group.findtext(f"{SPACE}title") or "").split(" ")[0]: group.find(f"{SPACE}rect") for group in drawn.iter(f"{SPACE}g")
    }
    assert set(boxes) == {region.id for region in plan.regions} == {"r0", "r1"}
    first, second = boxes["r0"], boxes["r1"]
    assert first is not None and second is not None
    assert float(first.get("x", "0")) == LEFT and float(first.get("y", "0")) == TOP
    assert float(first.get("width", "0")) == pytest.approx(WIDTH / 2, rel=1e-3)
    assert float(second.get("y", "0")) == TOP + LANE
    assert float(second.get("x", "0")) + float(second.get("width", "0")) == pytest.approx(LEFT + WIDTH, abs=0.2)
    assert first.get("fill") != second.get("fill")
    [line] = drawn.iter(f"{SPACE}line")
    assert (float(line.get("y1", "0")), float(line.get("y2", "0"))) == (TOP + BOX, TOP + LANE)
    said = " ".join(text.text or "" for text in drawn.iter(f"{SPACE}text"))
    assert "gpu:0 (unused)" in said and "6.00 s (calibrated)" in said and "2.0 KiB" in said


def test_names_cannot_break_the_drawing() -> None:
    plan = planned()
    wild = msgspec.structs.replace(plan, name='<script>"&', blocks=tuple(
        msgspec.structs.replace(block, name=f"<{block.name}>&") for block in plan.blocks
    ))  # fmt: skip
    drawn = ElementTree.fromstring(draw(wild))
    assert not list(drawn.iter(f"{SPACE}script")) and drawn.findtext(f"{SPACE}title") == '<script>"&: 2 regions'


def test_a_difference_names_blocks_memory_traffic_and_pins() -> None:
    one, two = planned(), planned(pins=(r"layers\.3.*=cpu:0/openvino",))
    text = difference(one, two)
    assert text.splitlines()[0].startswith("time: 6.00 s (calibrated) -> 14.00 s (calibrated), +133.3 %")
    assert "blocks 3 layers.3 (16.7 % of FLOPs): npu:0/onnxruntime" in text and "-> cpu:0/openvino" in text
    assert "memory of cpu:0" in text and r"pin added: layers\.3.*=cpu:0/openvino" in text
    assert "between devices" not in text, "as many bytes cross at one cut as at the other"
    same = difference(one, one)
    assert "+0.0 %" in same and "every one stays where it was" in same and "->" in same.splitlines()[0]
    assert len(same.splitlines()) == 2


def test_other_points_and_versions_are_told_and_other_programs_refused() -> None:
    one = planned()
    region = msgspec.structs.replace(one.regions[0], version="2.0")
    two = msgspec.structs.replace(one, points=({"B": 1},), regions=(region, *one.regions[1:]))
    text = difference(one, two)
    assert "not to be compared" in text and "openvino: version  -> 2.0" in text
    with pytest.raises(PartitionError, match=r"6 blocks.*5 blocks.*expected two of one program"):
        difference(one, planned(count=5))
