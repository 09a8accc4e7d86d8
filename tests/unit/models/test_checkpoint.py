"""The safetensors reader against the library's own, and against damaged files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inlay.errors import ModelError
from inlay.models import model_digest, numpy_dtype, open_checkpoint, write_tensors


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shard", ["1GB", "12KB"])
def test_tensors_are_those_the_library_reads(model_folder: Callable[..., Path], dtype: str, shard: str) -> None:
    folder = model_folder("weights", dtype=dtype, max_shard_size=shard)
    checkpoint = open_checkpoint(folder)
    theirs = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert checkpoint.names() == tuple(sorted(theirs))
    assert (len(checkpoint.files) > 1) == (shard == "12KB")
    for name, tensor in theirs.items():
        array, entry = checkpoint.tensor(name), checkpoint.entry(name)
        assert array.shape == tuple(tensor.shape) == entry.shape
        assert array.dtype == numpy_dtype(dtype)
        assert array.tobytes() == as_bytes(tensor)
        assert entry.file.read_bytes()[entry.offset : entry.offset + entry.length] == as_bytes(tensor)
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_an_unknown_tensor_is_a_model_error(model_folder: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(model_folder("unknown"))
    assert "nothing" not in checkpoint
    with pytest.raises(ModelError, match="'nothing'"):
        checkpoint.tensor("nothing")


def test_what_is_written_is_read_by_the_library_and_by_us(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "a": generator.normal(size=(3, 5)).astype(np.float32),
        "b": generator.normal(size=(7,)).astype(ml_dtypes.bfloat16),
        "c": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "d": np.zeros((0, 4), np.float16),
        "e": np.array(True),
        "f": np.arange(5, dtype=">i4"),
    }
    path = tmp_path / "model.safetensors"
    write_tensors(path, tensors, metadata={"made": "here"})
    theirs, ours = load_file(path), open_checkpoint(tmp_path)
    assert set(theirs) == set(tensors) == set(ours)
    for name, array in tensors.items():
        assert np.array_equal(ours.tensor(name), array)
        assert ours.tensor(name).shape == array.shape
        assert as_bytes(theirs[name].reshape(-1)) == ours.tensor(name).tobytes()
    assert ours.entry("c").offset % 64 == 0
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": np.ones(3)})
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_tensors(path, {"a": np.zeros(3)})
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == before


def test_a_dtype_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="complex128"):
        write_tensors(tmp_path / "x.safetensors", {"a": np.zeros(2, np.complex128)})


def make_file(path: Path, header: object, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def one(offsets: list[Any], *, shape: object = (2,), dtype: str = "F32", **more: Any) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


DAMAGED = {
    "past the end": (one([0, 8]), b"1234", "truncated"),
    "too much data": (one([0, 8]), b"123456789", "expected .* by its header"),
    "wrong length": (one([0, 4]), b"1234", "expected 8"),
    "backwards": (one([8, 0]), b"12345678", "expected 8"),
    "negative": (one([-8, 0]), b"12345678", "counts"),
    "boolean shape": (one([0, 8], shape=[True, 2]), b"12345678", "counts"),
    "unknown dtype": (one([0, 8], dtype="Q4"), b"12345678", "'Q4'"),
    "unhashable entry": ({"a": [1]}, b"", "expected dtype"),
    "extra field": (one([0, 8], extra=1), b"12345678", "expected dtype"),
    "overlap": ({**one([0, 8]), "b": one([4, 12])["a"]}, b"123456789012", "overlaps"),
    "hole": ({**one([0, 8]), "b": one([12, 20])["a"]}, b"1" * 20, "hole"),
    "not an object": ([1], b"", "expected an object"),
    "not JSON": (b"{{{{", b"", "not JSON"),
    "not text": (b"\xff\xfe{}", b"", "not JSON"),
    "twice": (b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{}}', b"1234", "twice"),
    "nested": (b"[" * 100_000, b"", "not JSON"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_a_model_error(tmp_path: Path, name: str) -> None:
    header, data, text = DAMAGED[name]
    make_file(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ModelError, match=text):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"1234", (200).to_bytes(8, "little") + b"{}", (2**40).to_bytes(8, "little") + b"{}"])
def test_a_header_that_is_not_in_the_file_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="truncated or not a safetensors file"):
        open_checkpoint(tmp_path)


def test_every_truncation_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": np.ones(8, np.float32), "b": np.ones(3, np.int8)})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            open_checkpoint(tmp_path)


def test_faults_of_an_index_are_model_errors(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(model_folder("shards", max_shard_size="12KB"), folder)
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    name, shard = next(iter(good["weight_map"].items()))
    other = next(file for file in good["weight_map"].values() if file != shard)

    def refuse(weight_map: object, text: str) -> None:
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ModelError, match=text):
            open_checkpoint(folder)

    refuse({**good["weight_map"], name: other}, "does not have it")
    refuse({**good["weight_map"], "new": other}, "'new'")
    refuse({**good["weight_map"], name: "../" + shard}, "same folder")
    refuse({**good["weight_map"], name: ".."}, "same folder")
    refuse({}, "weight_map")
    refuse({name: 3}, "weight_map")
    index.write_text(json.dumps(good))
    assert len(open_checkpoint(folder).files) > 1
    content = (folder / shard).read_bytes()
    (folder / shard).write_bytes(content[:-1])
    with pytest.raises(ModelError, match="truncated"):
        open_checkpoint(folder)
    (folder / shard).unlink()
    with pytest.raises(ModelError, match="lacks the shard"):
        open_checkpoint(folder)


def test_pickled_weights_alone_are_refused_and_so_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no weights"):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"only as pytorch_model\.bin"):
        open_checkpoint(tmp_path)


def test_the_digest_tells_models_apart_and_not_their_places(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = model_folder("digest")
    folder = tmp_path / "copy"
    shutil.copytree(first, folder, copy_function=shutil.copy)
    assert model_digest(folder) == model_digest(first)
    assert len(model_digest(folder)) == 64
    seen = {model_digest(folder)}

    def changed(file: str, content: bytes) -> None:
        old = (folder / file).read_bytes() if (folder / file).exists() else None
        (folder / file).write_bytes(content)
        assert model_digest(folder) not in seen
        seen.add(model_digest(folder))
        (folder / file).write_bytes(old) if old is not None else (folder / file).unlink()

    weights = (folder / "model.safetensors").read_bytes()
    changed("config.json", b"{}")
    changed("generation_config.json", b"{}")
    changed("tokenizer.json", b"{}")
    changed("model.safetensors", weights[:-1] + bytes([weights[-1] ^ 1]))
    (folder / "README.md").write_text("not part of it")
    assert model_digest(folder) in seen

    # Large files count by samples and by time.
    monkeypatch.setattr("inlay.models.digest.WHOLE_UP_TO", 10)
    sampled = model_digest(folder)
    assert sampled not in seen
    changed("model.safetensors", weights[:-1] + bytes([weights[-1] ^ 1]))
    assert model_digest(folder) != sampled
