"""`inlay compile`, `run`, `verify` and `explain` as a person uses them, and what they say to bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run
from compiling import build, captured, halves, source, two_devices

from inlay import api
from inlay.runtime.store import read_program

PINS = ["--pin", r"encoder\.layer\.[01]($|\.)=cpu:0/openvino", "--pin", r"encoder\.layer\.[23]($|\.)=cpu:0/onnxruntime"]
OFFERED = ["--backend", "openvino", "--backend", "onnxruntime"]


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("builds") / "pinned"
    found = run("compile", source("encoder"), "-o", str(target), *PINS, *OFFERED, "--rounds", "3", "--json", seconds=400)
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)
    shares: dict[str, float] = {}
    for region in facts["regions"]:
        shares[region["backend"]] = shares.get(region["backend"], 0.0) + region["flops_share"]
    assert shares.keys() == {"openvino", "onnxruntime"} and min(shares.values()) >= 0.25
    assert facts["unique_blocks"] < facts["blocks"] and facts["artifacts"] >= 2
    assert {region["seconds"]["grade"] for region in facts["regions"]} <= {"measured", "calibrated"}
    return target


def test_two_frameworks_in_one_build_stay_within_tolerance(pinned) -> None:
    found = run("run", str(pinned), "--verify", "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    facts = json.loads(found.stdout)
    regions = facts["verification"]["regions"]
    assert {region["backend"] for region in regions} == {"openvino", "onnxruntime"}
    assert all(0 < region["relative_error"] < 1e-4 for region in regions)
    assert len(facts["verification"]["points"]) >= 4 and facts["grade"] == "measured"


def test_a_plan_is_explained_with_its_reasons_and_can_be_edited_and_obeyed(pinned, tmp_path) -> None:
    text = run("explain", str(pinned)).stdout
    assert "pinned here by" in text and "floors" in text and "bound" in text
    plan = json.loads(run("explain", str(pinned), "--json").stdout)
    for region in plan["regions"]:
        region["backend"] = "onnxruntime"
    plan["pins"] = []
    edited = tmp_path / "plan.json"
    edited.write_text(json.dumps(plan))
    found = run("compile", source("encoder"), "-o", str(tmp_path / "edited"), "--plan", str(edited), "--json")
    assert found.returncode == 0, found.stderr
    assert {region["backend"] for region in json.loads(found.stdout)["regions"]} == {"onnxruntime"}


def test_device_processes_map_only_their_own_frameworks_and_never_the_models_code(pinned) -> None:
    with api.load(pinned) as opened:
        for device, pid in opened.session.pids.items():
            maps = Path(f"/proc/{pid}/maps").read_text()
            mapped = {name for name in ("openvino", "onnxruntime", "libtorch", "transformers") if name in maps}
            assert mapped == {region.backend for region in opened.build.manifest.regions if region.device == device}
        inputs = opened.random_inputs({"batch": 1, "length": 5})
        results = opened.run(inputs)
    assert results["last_hidden_state"].shape == (1, 5, 32) and np.isfinite(results["last_hidden_state"]).all()


def test_arrays_of_a_file_go_in_and_results_come_out(pinned, tmp_path) -> None:
    inputs, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    ids = np.arange(12, dtype=np.int64).reshape(2, 6)
    np.savez(inputs, input_ids=ids, attention_mask=np.ones_like(ids))
    assert run("run", str(pinned), "--inputs", str(inputs), "--outputs", str(outputs), "--repeat", "1").returncode == 0
    with np.load(outputs) as held:
        assert held["last_hidden_state"].shape == (2, 6, 32)
    np.savez(inputs, input_ids=ids.astype(np.int32), attention_mask=np.ones_like(ids))
    found = run("run", str(pinned), "--inputs", str(inputs))
    assert found.returncode == 2 and "'input_ids' is int32, expected int64" in found.stderr
    np.savez(inputs, input_ids=ids)
    assert "input 'attention_mask' is missing" in run("run", str(pinned), "--inputs", str(inputs)).stderr
    assert "size length is 65, expected 1 to 64" in run("run", str(pinned), "--size", "batch=1", "--size", "length=65").stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([source("data_dependent")], ["cannot be captured", "builders.py:", "depend on data"]),
        ([source("fixed_size")], ["rows", "4", "dynamic"]),
        ([source("nobody")], ["has no function 'nobody'", "encoder"]),
        (["absent.py:build"], ["absent.py", "FILE.py:FUNCTION"]),
        ([source("encoder"), "--pin", "nothing_like_it=cpu:0/openvino"], ["matches no block", "encoder"]),
        ([source("encoder"), "--pin", "layer=gpu:7/openvino"], ["gpu:7/openvino", "expected one of"]),
        ([source("encoder"), "--pin", "layer"], ["REGEX=DEVICE/BACKEND"]),
        ([source("encoder"), "--backend", "tensorsaurus"], ["tensorsaurus", "expected one of"]),
    ],
    ids=["data dependent", "fixed size", "function", "file", "pin without a block", "pin to nowhere", "pin", "backend"],
)
def test_bad_input_is_refused_with_value_expectation_and_hint(arguments, words, tmp_path) -> None:
    found = run("compile", *arguments, "-o", str(tmp_path / "build"))
    assert found.returncode in (2, 3), found.stdout + found.stderr
    assert "Traceback" not in found.stderr and "hint:" in found.stderr
    for word in words:
        assert word in found.stderr, found.stderr
    assert not (tmp_path / "build").exists()


def test_a_device_of_the_plan_that_is_gone_is_named(tmp_path) -> None:
    model = captured("halves")
    target = build(model, tmp_path / "build", halves(model, "openvino", "onnxruntime"))
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("nodes: {local: {}}\ndevices: {'npu:3': {node: local}}\n")
    found = run("run", str(target), "--cluster", str(cluster))
    assert found.returncode == 4 and "'cpu:0', which is gone" in found.stderr and "npu:3" in found.stderr


def test_damaged_and_foreign_artifacts_are_refused_before_anything_is_loaded(tmp_path) -> None:
    model = captured("halves")
    target = build(model, tmp_path / "build", halves(model, "openvino", "onnxruntime"))
    artifact = next((target / "artifacts").iterdir())
    code = next(path for path in artifact.iterdir() if path.suffix in (".xml", ".onnx"))
    good = code.read_bytes()
    code.write_bytes(good[:-1] + b"?")
    found = run("run", str(target))
    assert found.returncode == 4 and "has digest" in found.stderr and code.name in found.stderr
    code.write_bytes(good)
    manifest = json.loads((artifact / "manifest.json").read_text())
    package = next(name for name in manifest["fingerprint"] if name in ("openvino", "onnxruntime"))
    manifest["fingerprint"][package] = "1.0.0"
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    found = run("run", str(target))
    assert found.returncode == 4 and "recompile" in found.stderr and f"{package} 1.0.0" in found.stderr
    shutil.rmtree(target / "weights")
    assert "is missing" in run("run", str(target)).stderr
    assert "is no Build" in run("run", str(tmp_path)).stderr


def test_thirty_equal_layers_are_one_artifact_for_each_backend(tmp_path) -> None:
    model = captured("thirty_layers")
    stored = read_program(model.folder)
    layers = [block for block in stored.cut.blocks if block.name.startswith("encoder.layer.")]
    assert len(layers) == 30 and len({block.digest for block in layers}) == 1
    first, count = layers[0].index, len(stored.cut.blocks)
    regions = [(0, first + 15, "cpu:0", "openvino"), (first + 15, count, "cpu:1", "onnxruntime")]
    opened = api.load(build(model, tmp_path / "build", regions), cluster=two_devices())
    with opened:
        by_backend = {
            region.backend: {piece.artifact for piece in region.pieces if piece.first in {block.index for block in layers}}
            for region in opened.build.manifest.regions
        }
        artifacts, size = opened.build.artifact_count()
        print(f"thirty layers: {artifacts} artifacts, {size} bytes of code")
        assert {backend: len(found) for backend, found in by_backend.items()} == {"openvino": 1, "onnxruntime": 1}
        found = opened.verify(points=[{"batch": 2, "length": 8}])
    assert found.passed and all(region.relative_error < 1e-4 for region in found.regions)
