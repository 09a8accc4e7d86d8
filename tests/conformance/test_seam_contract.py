"""What the seam promises beside numbers: buffers, sizes, options, asynchronous completion, memory, fingerprints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_world import COMPUTING, need, relative_error, rewrite_manifest, run_case

from inlay.backends import backend, backend_names
from inlay.errors import ArtifactError, DeviceError, InputError, OutOfMemoryError, UnsupportedError
from inlay.runtime.cache import read_manifest
from inlay.runtime.load import load_stage_executable
from inlay.runtime.weights import map_weights, read_weight_map
from inlay.specs.artifact import LowerRequest
from inlay.specs.precision import Precision

EVERY = backend_names()


@pytest.mark.parametrize("name", EVERY)
def test_buffers_write_read_view_and_place_in_the_logical_layout(world: Any, name: str) -> None:
    need(name)
    executable = world.load(world.model("llama"), name)
    stage = read_manifest(Path(world.lower(world.model("llama"), name).artifacts[0].directory)).stage
    random = np.random.default_rng(0)
    for width in (1, 3, 7):
        past = executable.allocate(stage.past_key(0), (6, 2, 40, 8))
        new = executable.allocate(stage.new_key(0), (4, 2, width, 8))
        assert not past.read().any()
        model, fresh = (
            random.normal(size=(6, 2, 40, 8)).astype(np.float32),
            random.normal(size=(4, 2, width, 8)).astype(np.float32),
        )
        past.write(model)
        new.write(fresh)
        np.testing.assert_array_equal(past.read(), model)
        np.testing.assert_array_equal(past.read((slice(1, 3), slice(None), slice(15, 33))), model[1:3, :, 15:33])
        for counts in ([width] * 4, [width, 0, width, max(1, width - 1)], [0] * 4):
            rows, starts = [5, 0, 2, 3], [12, 0, 30, 15]
            past.place(new, rows=rows, starts=starts, counts=counts)
            for entry, (row, start, count) in enumerate(zip(rows, starts, counts, strict=True)):
                model[row, :, start : start + count] = fresh[entry, :, :count]
            np.testing.assert_array_equal(past.read(), model)
        view = past.rows(2, 3)
        assert view is past.rows(2, 3) and view.shape == (3, 2, 40, 8)
        piece = random.normal(size=(1, 2, 17, 8)).astype(np.float32)
        view.write(piece, (1, 0, 9, 0))
        model[3:4, :, 9:26] = piece
        np.testing.assert_array_equal(past.read(), model)
        np.testing.assert_array_equal(view.read(), model[2:5])
        with pytest.raises(DeviceError):
            past.write(piece, (0, 0, 30, 0))
    executable.close()


@pytest.mark.parametrize("name", COMPUTING)
def test_a_chunk_then_single_steps_through_the_pool_equal_one_forward(world: Any, plain: Any, name: str) -> None:
    need(name)
    folder = world.model("gemma2")
    executable = world.load(folder, name)
    stage = read_manifest(Path(world.lower(folder, name).artifacts[0].directory)).stage
    layers, capacity = len(stage.layers), 16
    truth = plain(folder, pasts=(0, 0), width=9, capacity=capacity, rows="all")
    tokens = truth.inputs[0]
    expected = truth.expected[0].reshape(2, 9, -1)
    pool = [executable.allocate(port, (5, *_shape(executable, port, capacity))) for port in range(3, stage.inputs)]
    start = 0
    for width in (5, 1, 1, 1, 1):
        sizes = {"B": 2, "T": width, "P": capacity, "R": 2}
        ports = {}
        for port, spec in enumerate((*executable.inputs, *executable.outputs)):
            if port < 3 or port >= stage.inputs:
                ports[port] = executable.allocate(port, tuple(sizes.get(size, size) for size in spec.shape))
                executable.bind(port, ports[port])
        for index, buffer in enumerate(pool):
            executable.bind(3 + index, buffer.rows(2, 2))
        ports[0].write(tokens[:, start : start + width])
        ports[1].write(np.full(2, start, np.int64))
        ports[2].write(np.arange(2) * width + width - 1)
        executable.run(sizes)
        for index, buffer in enumerate(pool):
            buffer.place(ports[stage.inputs + 1 + index], rows=[2, 3], starts=[start] * 2, counts=[width] * 2)
        start += width
        error = np.abs(ports[stage.result].read() - expected[:, start - 1]).max() / np.abs(expected).max()
        assert error < 1e-4
    assert not pool[0].rows(0, 2).read().any() and not pool[-1].rows(4, 1).read().any() and layers == 2
    executable.close()


def _shape(executable: Any, port: int, capacity: int) -> tuple[int, int, int]:
    _, heads, _, dim = executable.inputs[port].shape
    return heads, capacity, dim


@pytest.mark.parametrize("name", EVERY)
def test_wrong_bindings_and_sizes_are_refused_by_name(world: Any, name: str) -> None:
    need(name)
    executable = world.load(world.model("llama"), name)
    with pytest.raises(DeviceError, match=r"past_k\.0"):
        executable.allocate(3, (1, 3, 16, 8))
    with pytest.raises(DeviceError, match="tokens"):
        executable.run({"B": 1, "T": 1, "P": 16, "R": 1})
    with pytest.raises(DeviceError, match="past_lengths"):
        executable.bind(1, executable.allocate(0, (1, 1)))
    executable.close()
    with pytest.raises(InputError, match="no option 'colour'"):
        world.load(world.model("llama"), name, colour="red")


@pytest.mark.parametrize("name", EVERY)
def test_another_fingerprint_is_recompile_and_another_backend_unsupported(world: Any, tmp_path: Path, name: str) -> None:
    need(name)
    folder = world.model("llama")
    copy = tmp_path / "artifact"
    shutil.copytree(world.lower(folder, name).artifacts[0].directory, copy)
    manifest = read_manifest(copy)
    assert backend(name).validate(manifest) == "optimal"
    package = next(iter(manifest.fingerprint))
    for key in (package, "machine", "inlay-lowering"):
        rewrite_manifest(copy, fingerprint={**manifest.fingerprint, key: "other"})
        with pytest.raises(ArtifactError, match=r"(?s)lowered with.*hint: lower the model again"):
            world.load(folder, name, artifact=copy)
    rewrite_manifest(copy, fingerprint=manifest.fingerprint, backend="stranger")
    with pytest.raises(ArtifactError, match="stranger"):
        world.load(folder, name, artifact=copy)


@pytest.mark.parametrize("name", COMPUTING)
def test_a_damaged_artifact_file_is_named(world: Any, tmp_path: Path, name: str) -> None:
    need(name)
    folder = world.model("llama")
    copy = tmp_path / "artifact"
    shutil.copytree(world.lower(folder, name).artifacts[0].directory, copy)
    for file in read_manifest(copy).files:
        kept = (copy / file).read_bytes()
        (copy / file).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(ArtifactError, match=file):
            read_manifest(copy)
        (copy / file).unlink()
        with pytest.raises(ArtifactError, match=f"{file}' is missing"):
            read_manifest(copy)
        (copy / file).write_bytes(kept)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        read_manifest(copy)


def test_a_changed_weight_file_is_named_at_load(world: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(world.model("llama", seed=2), folder)
    lowered = world.lower(folder, "null")
    weight_map = read_weight_map(Path(lowered.weights))
    assert weight_map is not None
    map_weights(weight_map)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*does not have the bytes"):
        map_weights(weight_map)


def test_the_contrary_device_runs_declared_buckets_only(world: Any, plain: Any) -> None:
    need("contrary")
    folder = world.model("llama")
    executable = world.load(folder, "contrary")
    for shape in ({"pasts": (3, 4, 5, 6), "width": 5, "capacity": 16}, {"pasts": (3,), "width": 4, "capacity": 16}):
        with pytest.raises(UnsupportedError, match="no bucket for"):
            run_case(executable, plain(folder, **shape))
    with pytest.raises(UnsupportedError, match="no bucket for P = 20"):
        run_case(executable, plain(folder, pasts=(3,), width=5, capacity=20))
    executable.close()
    with pytest.raises(UnsupportedError, match="declared sizes"):
        from inlay.runtime.lower import lower_stage

        lower_stage(folder, wanted=[("contrary", LowerRequest())], cache=world.cache)


def test_the_contrary_device_completes_asynchronously_and_runs_out_of_memory(world: Any, plain: Any) -> None:
    need("contrary")
    folder = world.model("llama")
    executable = world.load(folder, "contrary", memory="200000")
    case = plain(folder, pasts=(10, 3), width=5, capacity=16)
    assert max(relative_error(run_case(executable, case), case.expected)) < 1e-4
    executable.start(case.sizes)
    with pytest.raises(DeviceError, match="still running"):
        executable.start(case.sizes)
    begun = time.monotonic()
    while not executable.done():
        assert time.monotonic() - begun < 30
        time.sleep(0.001)
    used = executable.memory.used
    buffer = executable.allocate(3, (1, 2, 32, 8))
    view = buffer.rows(0, 1)
    assert executable.memory.used == used + 2048
    del buffer
    assert executable.memory.used == used + 2048, "a view keeps the memory"
    del view
    assert executable.memory.used == used
    with pytest.raises(OutOfMemoryError, match="200000 bytes"):
        executable.allocate(3, (1000, 2, 48, 8))
    executable.close()


def test_the_contrary_device_rounds_kv_to_bfloat16_where_asked(world: Any, plain: Any) -> None:
    need("contrary")
    from conformance_world import BUCKETS

    from inlay.runtime.lower import lower_stage

    folder = world.model("llama")
    request = LowerRequest(buckets=BUCKETS, precision=Precision(kv="bfloat16"))
    lowered = lower_stage(folder, wanted=[("contrary", request)], cache=world.cache)
    executable = world.load(folder, "contrary", artifact=Path(lowered.artifacts[0].directory))
    case = plain(folder, pasts=(10, 14, 3), width=5, capacity=16)
    errors = relative_error(run_case(executable, case), case.expected)
    assert 1e-4 < max(errors) < 5e-2
    executable.close()


def test_openvino_uses_the_precision_it_was_asked_for_or_refuses(world: Any) -> None:
    need("openvino")
    from inlay.runtime.lower import lower_stage

    folder = world.model("llama")
    exact = world.load(folder, "openvino")
    assert exact.report["INFERENCE_PRECISION_HINT"] == "float32" and exact.report["KV_CACHE_PRECISION"] == "float32"
    exact.close()
    lowered = lower_stage(
        folder, wanted=[("openvino", LowerRequest(precision=Precision(compute="bfloat16")))], cache=world.cache
    )
    try:
        executable = world.load(folder, "openvino", artifact=Path(lowered.artifacts[0].directory))
    except DeviceError as error:
        assert "INFERENCE_PRECISION_HINT = float32 but bfloat16 was asked for" in error.message
    else:
        assert executable.report["INFERENCE_PRECISION_HINT"] == "bfloat16"
        executable.close()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "xla"])
def test_an_unknown_precision_is_refused_before_anything_is_lowered(world: Any, name: str) -> None:
    need(name)
    from inlay.runtime.lower import lower_stage

    request = LowerRequest(precision=Precision(weights="float16"))
    with pytest.raises(UnsupportedError, match="cannot compute in float16/float32/float32/float32, it has float32"):
        lower_stage(world.model("llama"), wanted=[(name, request)], cache=world.cache)


FRESH = """
import json, sys
from pathlib import Path
import numpy as np
from inlay.runtime import load_region
directory, weights, name = sys.argv[1:]
region = load_region(Path(directory), weights=Path(weights), backend=name, threads=1, options={})
run = region.executable
sizes = {"B": 2, "T": 3, "P": 16, "R": 2}
buffers = [run.allocate(i, tuple(sizes.get(s, s) for s in p.shape)) for i, p in enumerate((*run.inputs, *run.outputs))]
for index, buffer in enumerate(buffers):
    run.bind(index, buffer)
buffers[0].write(np.array([[5, 6, 7], [8, 9, 10]]))
buffers[2].write(np.array([2, 5]))
run.run(sizes)
maps = open("/proc/self/maps").read() if Path("/proc/self/maps").exists() else ""
foreign = [m for m in ("torch", "transformers", "onnx", "openvino_telemetry") if sys.modules.get(m)]
print(json.dumps({"foreign": foreign, "mapped": "libtorch" in maps, "logits": buffers[region.stage.result].read().tolist()}))
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_fresh_process_loads_and_runs_without_torch(world: Any, plain: Any, name: str) -> None:
    need(name)
    folder = world.model("llama")
    lowered = world.lower(folder, name)
    command = [sys.executable, "-W", "error", "-c", FRESH, lowered.artifacts[0].directory, lowered.weights, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["foreign"] == [] and not found["mapped"]
    truth = world.load(folder, "reference")
    sizes = {"B": 2, "T": 3, "P": 16, "R": 2}
    inputs = [np.array([[5, 6, 7], [8, 9, 10]]), np.zeros(2, np.int64), np.array([2, 5])]
    expected = run_case(truth, type("Case", (), {"sizes": sizes, "inputs": inputs}))[0]
    assert np.abs(np.array(found["logits"]) - expected).max() < 1e-4 * np.abs(expected).max()
    truth.close()


def test_lowering_opens_no_connection(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    need("openvino")
    import socket

    from inlay.runtime.lower import lower_stage

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened while lowering")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = world.model("llama", vocab_size=61)
    lower_stage(folder, wanted=[("openvino", LowerRequest())], cache=world.cache)
    assert sys.modules["openvino_telemetry"] is None


def test_an_executable_of_another_backend_is_not_bound(world: Any) -> None:
    need("contrary")
    folder = world.model("llama")
    one, two = world.load(folder, "contrary"), world.load(folder, "null")
    with pytest.raises(DeviceError, match="expected a buffer of its own"):
        one.bind(0, two.allocate(0, (1, 1)))
    with pytest.raises(DeviceError, match="expected a buffer of its own"):
        two.bind(0, one.allocate(0, (1, 1)))
    one.close()
    two.close()


def test_loading_with_a_weight_map_that_lacks_a_name_says_which(world: Any) -> None:
    need("reference")
    lowered = world.lower(world.model("llama"), "reference")
    manifest = read_manifest(Path(lowered.artifacts[0].directory))
    weight_map = read_weight_map(Path(lowered.weights))
    assert weight_map is not None
    del weight_map.weights["model.model.norm.weight"]
    with pytest.raises(ArtifactError, match=r"model\.model\.norm\.weight"):
        load_stage_executable(
            Path(lowered.artifacts[0].directory), manifest=manifest, weight_map=weight_map, backend_name="reference"
        )
