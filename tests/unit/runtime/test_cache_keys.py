"""The key of an artifact changes with everything that the code depends on, and with nothing else; the cache is verified."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inlay.backends import backend
from inlay.errors import ArtifactError, ModelError
from inlay.models import write_tensors
from inlay.runtime import cache as cache_module
from inlay.runtime.cache import Cache, artifact_key, find_artifact, find_weights, key_contents, model_digest
from inlay.runtime.publish import publish
from inlay.specs.artifact import ArtifactManifest, LowerRequest, ShapeBuckets
from inlay.specs.precision import Precision

CONFIG = {"model_type": "llama", "hidden_size": 4, "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": None}


def folder_with(
    path: Path,
    *,
    config: dict[str, Any] | None = None,
    shape: tuple[int, ...] = (3, 4),
    dtype: str = "float32",
    value: float = 1.0,
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    write_tensors(
        path / "model.safetensors", {"a.weight": np.full(shape, value, dtype), "b.weight": np.zeros((2, 2), np.float32)}
    )
    return path


def key_of(folder: Path, **request: Any) -> str:
    return artifact_key(folder, backend=backend("onnxruntime"), request=LowerRequest(**request))


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"rms_norm_eps": 1e-5}},
        {"config": {"hidden_act": "gelu"}},
        {"config": {"sliding_window": 4}},
        {"config": {"attention_bias": True}},
        {"shape": (4, 3)},
        {"shape": (3, 5)},
        {"dtype": "float16"},
    ],
    ids=str,
)
def test_a_model_that_differs_in_one_thing_has_another_key(tmp_path: Path, change: dict[str, Any]) -> None:
    assert key_of(folder_with(tmp_path / "a")) != key_of(folder_with(tmp_path / "b", **change))


@pytest.mark.parametrize(
    "change", [{"value": 2.0}, {"config": {"_name_or_path": "elsewhere"}}, {"config": {"transformers_version": "9"}}], ids=str
)
def test_what_does_not_touch_the_graph_leaves_the_key(tmp_path: Path, change: dict[str, Any]) -> None:
    assert key_of(folder_with(tmp_path / "a")) == key_of(folder_with(tmp_path / "b", **change))


def test_other_weights_are_another_model_but_the_same_artifact(tmp_path: Path) -> None:
    one, two = folder_with(tmp_path / "a"), folder_with(tmp_path / "b", value=2.0)
    assert key_of(one) == key_of(two)
    assert model_digest(one) != model_digest(two)


def test_every_request_has_its_own_key(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "a")
    bucket = ShapeBuckets(batches=(1,), widths=(1,), capacities=(16,))
    requests = [
        {},
        {"precision": Precision(compute="bfloat16")},
        {"precision": Precision(kv="bfloat16")},
        {"precision": Precision(accumulate="bfloat16")},
        {"precision": Precision(weights="bfloat16")},
        {"buckets": bucket},
        {"buckets": msgspec.structs.replace(bucket, batches=(1, 2))},
        {"buckets": msgspec.structs.replace(bucket, widths=(2,))},
        {"buckets": msgspec.structs.replace(bucket, capacities=(32,))},
    ]
    keys = {key_of(folder, **request) for request in requests}
    keys |= {artifact_key(folder, backend=backend(name), request=LowerRequest()) for name in ("openvino", "reference", "null")}
    keys.add(artifact_key(folder, backend=backend("onnxruntime"), request=LowerRequest(), experts="eager"))
    assert len(keys) == len(requests) + 4
    assert key_of(folder, threads=1) == key_of(folder, threads=8), "no backend here bakes its threads in"


@pytest.mark.parametrize("package", ["torch", "transformers", "onnxruntime", "onnx", "onnxscript"])
def test_another_version_of_any_tool_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    folder = folder_with(tmp_path / "a")
    before = key_of(folder)
    versions = cache_module.package_version
    monkeypatch.setattr(
        cache_module, "package_version", lambda name, environment: "0.0" if name == package else versions(name, environment)
    )
    assert key_of(folder) != before


def test_our_own_lowering_sources_platform_and_version_are_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_with(tmp_path / "a")
    keys = {key_of(folder)}
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "LOWERING_VERSION", "other")
        keys.add(key_of(folder))
    with monkeypatch.context() as patch:
        patch.setattr(cache_module.platform, "machine", lambda: "riscv64")
        keys.add(key_of(folder))
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "SOURCES", cache_module.SOURCES[1:])
        keys.add(key_of(folder))
    assert len(keys) == 4


def test_a_key_needs_no_torch_and_can_be_read_as_data(tmp_path: Path) -> None:
    contents = key_contents(folder_with(tmp_path / "a"), backend=backend("openvino"), request=LowerRequest())
    assert json.loads(json.dumps(contents)) == contents
    assert contents["tensors"] == {"a.weight": ["float32", [3, 4]], "b.weight": ["float32", [2, 2]]}
    assert "openvino" in contents["tools"] and "threads" not in contents["request"]


def test_a_cache_without_the_artifact_has_none(tmp_path: Path) -> None:
    cache = Cache.default({"INLAY_CACHE": str(tmp_path / "cache")})
    folder = folder_with(tmp_path / "a")
    assert find_artifact(cache, key_of(folder)) is None
    assert find_weights(cache, folder) is None


def test_a_published_artifact_is_found_and_checked(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert publish(cache.artifact("k"), fill)
    found = find_artifact(cache, "k")
    assert found is not None and found[0] == cache.artifact("k") and found[1].backend == "null"
    assert not publish(cache.artifact("k"), fill), "the first one stays"
    (cache.artifact("k") / "code").write_text("b")
    with pytest.raises(ArtifactError, match=r"code' has digest"):
        find_artifact(cache, "k")


def test_a_failed_lowering_publishes_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ModelError("planted")

    with pytest.raises(ModelError):
        publish(tmp_path / "artifacts" / "k", fail)
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_two_processes_that_publish_at_once_leave_one_whole_artifact(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=publish_slowly, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert find_artifact(Cache(tmp_path), "k") is not None
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["k"]


def publish_slowly(root: Path) -> None:
    publish(Cache(root).artifact("k"), fill)


def fill(folder: Path) -> None:
    (folder / "code").write_text("a")
    digest = cache_module.file_digest(folder / "code")
    manifest = ArtifactManifest(
        version=1,
        backend="null",
        fingerprint={},
        precision=Precision(),
        inputs=(),
        outputs=(),
        weights=(),
        files={"code": digest},
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
