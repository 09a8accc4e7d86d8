"""Targets are listed by the backends that make code for them; code for what is not here is told, never loaded."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from inlay.backends import backend
from inlay.backends.targets import check_loadable, check_target, runnable_of, target_backend, targets, targets_of
from inlay.errors import ArtifactError, DeviceError, InputError, UnsupportedError
from inlay.hardware import Cluster, Device, Node, describe_cluster, device_kind, parse_cluster
from inlay.runtime.build import read_build
from inlay.runtime.cache import digest_of
from inlay.runtime.load import load_stage_executable
from inlay.runtime.lowering import piece_key_contents
from inlay.runtime.targeted import check_folder
from inlay.specs.artifact import ArtifactManifest, LowerRequest, WeightMap
from inlay.specs.precision import Precision
from inlay.specs.target import Built

MANIFEST = ArtifactManifest(
    version=2, backend="iree", fingerprint={}, precision=Precision(), inputs=(), outputs=(), weights=(), files={}
)


def test_every_target_belongs_to_a_backend_that_lists_it_and_can_be_run_only_where_listed() -> None:
    known = targets()
    assert {"metal", "rocm-gfx942", "vulkan", "cpu-riscv64"} <= set(known) and list(known) == sorted(known)
    for name, (owner, text) in known.items():
        assert target_backend(name) == owner and targets_of(backend(owner))[name] == text
    assert set(runnable_of(backend("iree"))) <= set(targets_of(backend("iree")))
    assert targets_of(backend("openvino")) == {} and runnable_of(backend("openvino")) == ()


def test_an_unknown_target_lists_the_known_ones_and_a_backend_names_its_own() -> None:
    with pytest.raises(InputError, match=r"'toaster' is not known, expected one of: .*metal, .*vulkan"):
        target_backend("toaster")
    with pytest.raises(UnsupportedError, match=r"openvino makes no code for target 'metal', expected one of: none") as caught:
        check_target(backend("openvino"), "metal")
    assert "metal" in str(caught.value.hint)
    check_target(backend("openvino"), "")
    check_target(backend("iree"), "metal")


def test_code_for_what_is_not_here_is_built_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made, found = msgspec.structs.replace(MANIFEST, target="metal"), backend("iree")
    with pytest.raises(ArtifactError, match=r"artifact x is for target 'metal' \(Apple GPU\): built, not run"):
        check_loadable(made, found, where="artifact x")
    check_loadable(msgspec.structs.replace(MANIFEST, target="vulkan"), found, where="artifact x")
    check_loadable(MANIFEST, found, where="artifact x")
    monkeypatch.setattr(type(found), "validate", lambda self, manifest: "optimal")
    with pytest.raises(ArtifactError, match="built, not run"):
        weights = WeightMap(model_digest="d", weights={})
        load_stage_executable(Path("x"), manifest=made, weight_map=weights, backend_name="iree")


def test_the_target_is_part_of_the_key() -> None:
    class Piece:
        digest = "d"

    keys = {
        digest_of(piece_key_contents(Piece(), backend=backend("iree"), request=LowerRequest(target=name)))  # type: ignore[arg-type]
        for name in ("", "metal", "vulkan")
    }
    assert len(keys) == 3


def test_a_device_with_a_target_is_a_kind_of_its_own_and_is_written_as_it_was_read() -> None:
    described = {
        "nodes": {"local": None},
        "devices": {"cpu:0": {"node": "local", "cores": [0]}, "lavapipe:0": {"node": "local", "target": "vulkan"}},
    }
    cluster = parse_cluster(described, source="test")
    assert cluster.device("lavapipe:0").target == "vulkan" and cluster.device("cpu:0").target == ""
    written = describe_cluster(cluster)
    assert "target" not in written["devices"]["cpu:0"]  # type: ignore[index]
    assert parse_cluster(written, source="test") == cluster
    same = {name: Device(name=name, node="local", chip="c", target=text) for name, text in (("a:0", ""), ("b:0", "vulkan"))}
    both = Cluster(nodes={"local": Node(name="local")}, devices=same)
    assert (device_kind(both, "a:0"), device_kind(both, "b:0")) == ("c x1", "c as vulkan x1")


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="was not built for a target"):
        check_folder(tmp_path)
    (tmp_path / "built.json").write_text("{}")
    check_folder(tmp_path)
    with pytest.raises(ArtifactError, match=r"built\.json cannot be read"):
        read_build(tmp_path)
    built = Built(
        target="metal",
        device="Apple GPU",
        backend="iree",
        program="p",
        blocks=1,
        points=(),
        code_bytes=1,
        figures={},
        fingerprint={},
    )
    (tmp_path / "built.json").write_bytes(msgspec.json.encode(built))
    with pytest.raises(ArtifactError, match=r"is for target 'metal' \(Apple GPU\): built, not run"):
        read_build(tmp_path)


def test_tensorrt_runs_where_its_provider_is_and_a_session_that_went_on_without_it_is_refused() -> None:
    pytest.importorskip("onnxruntime")
    from inlay.backends.onnxruntime.execute import check_report

    class Session:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    found, made = backend("onnxruntime"), msgspec.structs.replace(MANIFEST, target="tensorrt")
    if not runnable_of(found):
        with pytest.raises(ArtifactError, match=r"'tensorrt' \(NVIDIA GPU by TensorRT\): built, not run"):
            check_loadable(made, found, where="artifact x")
    with pytest.raises(DeviceError, match="uses CPUExecutionProvider, expected TensorrtExecutionProvider, CUDA"):
        check_report(Session(), made, None)
