"""The weight map refers to the checkpoint where it can and writes once what it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np

from inlay.models import open_checkpoint, write_tensors
from inlay.runtime.weights import build_weight_map, map_weights, read_weight_map


def build(
    root: Path, arrays: dict[str, np.ndarray], held: dict[str, np.ndarray], candidates: dict[str, list[str]] | None = None
):  # type: ignore[no-untyped-def]
    folder = root / "model"
    folder.mkdir(parents=True)
    write_tensors(folder / "model.safetensors", held)
    return build_weight_map(
        arrays,
        candidates=candidates or {name: [name] for name in arrays},
        checkpoint=open_checkpoint(folder),
        model_digest="d",
        directory=root / "weights",
    )


def test_equal_bits_are_referenced_and_everything_else_is_written_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    same = random.normal(size=(3, 4)).astype(np.float32)
    short = same.astype(ml_dtypes.bfloat16)
    arrays = {
        "same": same,
        "renamed": same,
        "cast": short.astype(np.float32),
        "tied": short.astype(np.float32),
        "turned": np.ascontiguousarray(same.T),
        "changed": np.where(same == same[0, 0], -same, same),
        "scalar": np.array(3.5, np.float32),
    }
    held = {"same": same, "cast": short, "turned": same, "changed": same}
    found = build(tmp_path, arrays, held, {**{name: [name] for name in arrays}, "renamed": ["absent", "same"]})
    transforms = {name: item.transform for name, item in found.weights.items()}
    assert transforms == {
        "same": "none", "renamed": "none", "cast": "materialised", "tied": "materialised", "turned": "materialised",
        "changed": "materialised", "scalar": "materialised",
    }  # fmt: skip
    assert found.weights["renamed"].file == str(tmp_path / "model" / "model.safetensors")
    assert found.weights["cast"].tensor == found.weights["tied"].tensor
    mapped = map_weights(found)
    for name, array in arrays.items():
        np.testing.assert_array_equal(mapped[name], array)
        assert not mapped[name].flags.writeable
    assert list(map_weights(found, names=["turned", "same"])) == ["turned", "same"]


def test_zero_and_minus_zero_are_different_weights(tmp_path: Path) -> None:
    found = build(tmp_path, {"a": np.array([-0.0], np.float32)}, {"a": np.array([0.0], np.float32)})
    assert found.weights["a"].transform == "materialised"


def test_a_map_whose_checkpoint_has_gone_is_no_map_and_is_made_anew(tmp_path: Path) -> None:
    arrays = {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}
    build(tmp_path, arrays, {"a": arrays["a"]})
    assert read_weight_map(tmp_path / "weights") is not None
    shutil.move(tmp_path / "model", tmp_path / "moved")
    assert read_weight_map(tmp_path / "weights") is None
    names = {name: [name] for name in arrays}
    moved = open_checkpoint(tmp_path / "moved")
    build_weight_map(arrays, candidates=names, checkpoint=moved, model_digest="d", directory=tmp_path / "weights")
    found = read_weight_map(tmp_path / "weights")
    assert found is not None and found.weights["a"].file == str(tmp_path / "moved" / "model.safetensors")
    assert {name: array.tolist() for name, array in map_weights(found).items()} == {"a": [1, 1, 1], "b": [0, 0]}


def test_a_checkpoint_of_links_is_referenced_by_its_own_names(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    write_tensors(blobs / "0abc", {"a": np.ones(3, np.float32)})
    (folder / "model.safetensors").symlink_to(blobs / "0abc")
    found = build_weight_map(
        {"a": np.ones(3, np.float32)}, candidates={"a": ["a"]}, checkpoint=open_checkpoint(folder), model_digest="d",
        directory=tmp_path / "weights",
    )  # fmt: skip
    assert found.weights["a"].file == str(folder / "model.safetensors")
    np.testing.assert_array_equal(map_weights(found)["a"], np.ones(3))
