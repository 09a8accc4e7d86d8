"""Weights of a model folder: safetensors files, mapped and viewed through numpy, without torch.

The headers are input like any other: sizes, offsets and overlaps are checked before a byte is looked at.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from inlay.errors import ModelError
from inlay.models.folder import check_folder, read_json
from inlay.models.safetensors_header import TensorEntry, read_header

Array = np.ndarray[Any, Any]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Checkpoint:
    """The tensors of a folder by name. Views stay valid for as long as they are referenced; they are read-only."""

    def __init__(self, folder: Path, entries: Mapping[str, TensorEntry]) -> None:
        self.folder = folder
        self.files = tuple(sorted({entry.file for entry in entries.values()}))
        self._entries = dict(entries)
        self._maps: dict[Path, mmap.mmap] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def names(self) -> tuple[str, ...]:
        """All tensor names, sorted."""
        return tuple(sorted(self._entries))

    def entry(self, name: str) -> TensorEntry:
        """Where one tensor lies; ModelError when there is none of that name."""
        if name not in self._entries:
            raise ModelError(
                f"tensor {name!r} is not in {self.folder}, expected one of its {len(self._entries)} tensors",
                hint="the weights may be of another architecture than config.json says",
            )
        return self._entries[name]

    def tensor(self, name: str) -> Array:
        """A read-only view of the mapped file: nothing is copied or converted; bfloat16 through ml_dtypes."""
        entry = self.entry(name)
        dtype = numpy_dtype(entry.dtype)
        if entry.length == 0:
            return np.zeros(entry.shape, dtype)
        if entry.file not in self._maps:
            with entry.file.open("rb") as file:
                self._maps[entry.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = entry.length // dtype.itemsize
        return np.frombuffer(self._maps[entry.file], dtype, count, entry.offset).reshape(entry.shape)


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """The weights of a folder, in one file or in shards. Raises ModelError with the cause when they cannot be used."""
    path = check_folder(folder)
    if (path / SINGLE).is_file():
        return Checkpoint(path, read_header(path / SINGLE).entries)
    index = read_json(path, INDEX)
    if index is not None:
        return Checkpoint(path, _read_shards(path, index))
    pickled = sorted(file.name for file in path.iterdir() if file.name.endswith((".bin", ".pt", ".pth")))
    if pickled:
        raise ModelError(
            f"{path} has weights only as {pickled[0]}, expected {SINGLE} or {INDEX}",
            hint="pickled weights can run code and are never read; convert them with safetensors' own tool",
        )
    raise ModelError(f"{path} has no weights, expected {SINGLE} or {INDEX}", hint="download the safetensors files")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a dtype name such as "float32" or "bfloat16"."""
    return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


def _read_shards(path: Path, index: dict[str, Any]) -> dict[str, TensorEntry]:
    where = path / INDEX
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise ModelError(f"{where} has no weight_map from names to files", hint="download the index again")
    shards: dict[str, Mapping[str, TensorEntry]] = {}
    for shard in sorted(set(names.values())):
        # The index is input: it may not point outside the folder.
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise ModelError(f"{where} names the shard {shard!r}, expected a file in the same folder", hint="download it again")
        if not (path / shard).is_file():
            raise ModelError(f"{path} lacks the shard {shard!r} that {INDEX} names", hint="download that file")
        shards[shard] = read_header(path / shard).entries
    for name, shard in names.items():
        if name not in shards[shard]:
            raise ModelError(
                f"{where} says that tensor {name!r} is in {shard}, which does not have it",
                hint="index and shards are of different versions: download both again",
            )
    return {name: shards[shard][name] for name, shard in names.items()}
