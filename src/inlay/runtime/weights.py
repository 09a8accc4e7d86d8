"""Make the WeightMap of a model: references into the checkpoint where its bytes are used as they are, else into the cache.

No torch: the arrays come from `runtime.lower`. Loading is `map_weights`, which the backends use too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from inlay.backends import Array, map_weights, tensor_digest
from inlay.errors import ArtifactError
from inlay.models import Checkpoint, write_tensors
from inlay.runtime.publish import publish
from inlay.specs.artifact import WeightMap, WeightReference

__all__ = ["build_weight_map", "map_weights", "read_weight_map"]

MAP_FILE = "weights.json"
TENSOR_FILE = "model.safetensors"


def build_weight_map(
    arrays: Mapping[str, Array],
    *,
    candidates: Mapping[str, Sequence[str]] | None = None,
    checkpoint: Checkpoint | None = None,
    model_digest: str,
    directory: Path,
    transforms: Mapping[str, str] | None = None,
) -> WeightMap:
    """Reference every array, write those that the checkpoint does not hold bit for bit, publish all as `directory`.

    `candidates` gives, for each array, the checkpoint names that it may lie under; without a checkpoint all are written.
    `transforms` says what was done to those that are no tensor of the checkpoint, where more than laying them out. Equal arrays
    are written once. Files of the directory itself are named relative to it, so that it can be moved. A usable map that another
    process has published meanwhile is kept and returned; an unusable one is replaced.
    """
    weights: dict[str, WeightReference] = {}
    written: dict[str, Array] = {}  # by digest
    for name, array in arrays.items():
        digest = tensor_digest(array)
        found = None if checkpoint is None or candidates is None else _find(checkpoint, candidates[name], array)
        if found is None:
            held = written.setdefault(f"{digest}-{'x'.join(map(str, array.shape))}", array)
            tensor = next(key for key, value in written.items() if value is held)
            file, transform = Path(TENSOR_FILE), (transforms or {}).get(name, "materialised")
        else:
            (file, tensor), transform = found, "none"
        weights[name] = WeightReference(
            file=str(file), tensor=tensor, dtype=array.dtype.name, shape=array.shape, digest=digest, transform=transform
        )
    result = WeightMap(model_digest=model_digest, weights=weights)

    def fill(folder: Path) -> None:
        if written:
            write_tensors(folder / TENSOR_FILE, written)
        (folder / MAP_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(result, order="sorted")))

    publish(directory, fill, replace=read_weight_map(directory) is None)
    return read_weight_map(directory) or resolved(result, directory)


def read_weight_map(directory: Path) -> WeightMap | None:
    """The published map, or None where there is none or where a checkpoint file that it names has gone elsewhere."""
    path = directory / MAP_FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=WeightMap)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise ArtifactError(f"weight map {str(path)!r} cannot be read: {error}", hint=f"delete {directory}") from error
    found = resolved(found, directory)
    gone = [file for file in {item.file for item in found.weights.values()} if not os.path.isfile(file)]
    return None if gone else found


def resolved(found: WeightMap, directory: Path) -> WeightMap:
    """The same map with files named relative to its folder made absolute."""
    base = Path(os.path.abspath(directory))
    weights = {name: msgspec.structs.replace(item, file=str(base / item.file)) for name, item in found.weights.items()}
    return msgspec.structs.replace(found, weights=weights)


def _find(checkpoint: Checkpoint, names: Sequence[str], array: Array) -> tuple[Path, str] | None:
    """File and name of the first of these tensors whose dtype, shape and bytes are the array's."""
    for name in names:
        if name not in checkpoint:
            continue
        entry = checkpoint.entry(name)
        alike = (entry.dtype, entry.shape) == (array.dtype.name, array.shape)
        if alike and np.array_equal(_bits(checkpoint.tensor(name)), _bits(array)):
            # Not resolved: the files of a downloaded snapshot are links to blobs that have no telling names.
            return Path(os.path.abspath(entry.file)), name
    return None


def _bits(array: Array) -> Array:
    """The bytes of an array, so that NaN equals itself and -0.0 is not 0.0."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
