"""Programs cut over frameworks and devices give what the whole gives: states, tied weights, tuples, sizes, failures."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from compiling import build, captured, halves, two_devices

from inlay import api
from inlay.backends import backend
from inlay.errors import DeviceError, DeviceLostError, InputError, UnsupportedError
from inlay.runtime.build import read_build
from inlay.runtime.opening import open_build, open_reference
from inlay.runtime.store import read_program

ONE, TWO = ("cpu:0", "cpu:0"), ("cpu:0", "cpu:1")
PAIRS = [
    ("openvino", "onnxruntime", ONE), ("openvino", "onnxruntime", TWO), ("onnxruntime", "openvino", ONE),
    ("openvino", "contrary", ONE), ("contrary", "onnxruntime", TWO), ("contrary", "contrary", TWO),
    ("reference", "openvino", TWO),
]  # fmt: skip


def need(*names: str) -> None:
    for name in names:
        found = backend(name).available()
        if not found.available:
            pytest.skip(found.reason)


@pytest.mark.parametrize(("one", "two", "devices"), PAIRS)
def test_every_pair_of_frameworks_gives_what_the_whole_gives(one, two, devices, tmp_path) -> None:
    need(one, two)
    model = captured("tied_ends")
    target = build(model, tmp_path / "build", halves(model, one, two, devices=devices))
    with api.load(target, cluster=two_devices()) as opened:
        found = opened.verify(seed=3)
    assert found.passed, found
    assert all(region.relative_error < 1e-4 for region in found.regions) and found.results["places"] == 0


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "contrary"])
def test_hole_07_states_that_are_no_kv_are_kept_over_ten_steps_as_by_the_module(name, tmp_path) -> None:
    need(name)
    import torch
    from builders import stateful

    model = captured("stateful")
    blocks = read_program(model.folder).cut.blocks
    assert all(len([block for block in blocks if state.input in block.inputs]) == 1 for state in model.program.states)
    eager = stateful()["model"].eval()
    target = build(model, tmp_path / "build", [(0, len(blocks), "cpu:0", name)])
    random = np.random.default_rng(0)
    with api.load(target, cluster=two_devices()) as opened:
        for _ in range(10):
            x = random.standard_normal((3, 8)).astype(np.float32)  # one size: contrary runs declared points only
            with torch.no_grad():
                expected = eager(torch.from_numpy(x)).numpy()
            np.testing.assert_allclose(opened.run({"x": x})["output"], expected, rtol=1e-4, atol=1e-5)


def test_states_are_carried_on_when_the_sizes_change(tmp_path) -> None:
    import torch
    from builders import stateful

    model = captured("stateful")
    eager = stateful()["model"].eval()
    target = build(model, tmp_path / "build", [(0, len(read_program(model.folder).cut.blocks), "cpu:0", "openvino")])
    random = np.random.default_rng(1)
    with api.load(target, cluster=two_devices()) as opened:
        for rows in (3, 1, 3, 16, 2):
            x = random.standard_normal((rows, 8)).astype(np.float32)
            with torch.no_grad():
                expected = eager(torch.from_numpy(x)).numpy()
            np.testing.assert_allclose(opened.run({"x": x})["output"], expected, rtol=1e-4, atol=1e-5)


def test_hole_17_every_size_from_the_least_to_the_most_is_right_and_others_are_refused(tmp_path) -> None:
    model = captured("encoder")
    target = build(model, tmp_path / "build", halves(model, "onnxruntime", "openvino"))
    points = [{"batch": batch, "length": length} for batch in (1, 3, 5, 8) for length in (1, 6, 31, 64)]
    with api.load(target, cluster=two_devices()) as opened:
        found = opened.verify(points=points)
        assert found.passed, found
        with pytest.raises(InputError, match="size batch is 9, expected 1 to 8"):
            opened.run(opened.random_inputs({"batch": 9, "length": 4}))


def test_a_static_device_refuses_an_undeclared_size_and_runs_the_next_one(tmp_path) -> None:
    model = captured("encoder")
    target = build(model, tmp_path / "build", halves(model, "openvino", "contrary"))
    with api.load(target, cluster=two_devices()) as opened:
        with pytest.raises(UnsupportedError, match=r"region r1 .*no bucket for .*'length': 11"):
            opened.run(opened.random_inputs({"batch": 2, "length": 11}))
        assert opened.run(opened.random_inputs()).keys() == {"last_hidden_state", "pooler_output"}


def test_hole_18_results_of_two_runs_are_both_kept(tmp_path) -> None:
    model = captured("encoder")
    target = build(model, tmp_path / "build", halves(model, "openvino", "onnxruntime", devices=("cpu:0", "cpu:0")))
    with api.load(target, cluster=two_devices()) as opened:
        one, two = opened.random_inputs(seed=1), opened.random_inputs(seed=2)
        first = opened.run(one)
        kept = {name: value.copy() for name, value in first.items()}
        second = opened.run(two)
        again = opened.run(one)
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])
        np.testing.assert_array_equal(value, again[name])
        assert not np.array_equal(value, second[name])


def test_a_device_process_that_dies_is_told_by_name_and_nothing_is_left(tmp_path) -> None:
    model = captured("halves")
    build_folder = build(model, tmp_path / "build", halves(model, "openvino", "onnxruntime"))
    opened = api.load(build_folder, cluster=two_devices())
    pids = opened.session.pids
    os.kill(pids["cpu:1"], signal.SIGKILL)
    with opened, pytest.raises((DeviceLostError, DeviceError), match="cpu:1"):
        opened.run(opened.random_inputs())
    assert not any(Path(f"/proc/{pid}/maps").exists() and Path(f"/proc/{pid}/maps").read_text() for pid in pids.values())


def test_hole_12_every_node_and_weight_belongs_to_one_block_or_is_a_cheap_producer() -> None:
    for name in ("encoder", "tied_ends", "stateful", "halves"):
        cut = read_program(captured(name).folder).cut
        own = [node for block in cut.blocks for node in block.nodes]
        assert len(own) == len(set(own))
        repeated = {node for block in cut.blocks for node in block.replicated}
        assert not repeated & set(own)
        made = {value for block in cut.blocks for value in block.outputs}
        assert set(cut.program.outputs) <= made | set(cut.program.inputs)


def test_hole_14_there_are_no_more_pieces_than_blocks_and_a_fused_region_is_one(tmp_path) -> None:
    model = captured("encoder")
    count = len(read_program(model.folder).cut.blocks)
    regions = halves(model, "openvino", "onnxruntime")
    by_block = read_build(build(model, tmp_path / "blocks", regions))
    fused = read_build(build(model, tmp_path / "fused", regions, fused=True))
    assert sum(len(region.pieces) for region in by_block.manifest.regions) == count
    assert [len(region.pieces) for region in fused.manifest.regions] == [1, 1]
    with open_build(fused, two_devices()) as session, open_reference(fused, two_devices()) as truth:
        from inlay.runtime.verify import verify

        assert verify(fused, session, truth, seed=0).passed


def test_a_planted_error_is_found_and_its_region_named(tmp_path) -> None:
    model = captured("encoder")
    target = build(model, tmp_path / "build", halves(model, "openvino", "onnxruntime"))
    spoil_epsilon(target)
    with api.load(target, cluster=two_devices()) as opened:
        found = opened.verify()
    assert not found.passed and [region.id for region in found.regions if not region.passed] == ["r0"]
    assert found.culprit is not None and found.culprit.region == "r0" and "artifact" in found.culprit.reason


def spoil_epsilon(target: Path) -> None:
    """Change a constant argument in the lowered code of the OpenVINO region, and make the digest fit."""
    import json
    import re

    from inlay.backends.manifest import file_digest

    for manifest in (target / "artifacts").glob("*/manifest.json"):
        code = manifest.with_name("model.xml")
        if code.exists() and 'eps="' in code.read_text():
            code.write_text(re.sub(r'eps="[^"]+"', 'eps="0.7"', code.read_text()))
            held = json.loads(manifest.read_text())
            held["files"]["model.xml"] = file_digest(code)
            manifest.write_text(json.dumps(held))
