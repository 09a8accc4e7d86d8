"""Read weights by reference: safetensors files mapped into memory, checked against their digests. No torch.

Called by each backend's `load`; WeightMaps are made by `runtime.weights`.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from inlay.backends.seam import Array
from inlay.errors import ArtifactError, ModelError
from inlay.models import Checkpoint, open_checkpoint
from inlay.specs.artifact import WeightMap, WeightReference

CHECKED_BYTES = 2 << 30


def tensor_digest(array: Array) -> str:
    """sha256 over the bytes of a tensor in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def map_weights(weight_map: WeightMap, *, names: Iterable[str] | None = None) -> dict[str, Array]:
    """Read-only arrays of the named weights (all by default), in that order, mapped from their files.

    Bytes are checked against the map's digests where all of them together are at most 2 GiB; above that only names,
    dtypes and shapes are, since reading everything would cost more than the start itself. Raises ArtifactError that
    names the file and the tensor at fault.
    """
    wanted = list(weight_map.weights) if names is None else list(names)
    folders: dict[Path, Checkpoint] = {}
    arrays: dict[str, Array] = {}
    for name in wanted:
        reference = weight_map.weights.get(name)
        if reference is None:
            raise ArtifactError(
                f"weight {name!r} is not in the weight map of model {weight_map.model_digest[:12]}",
                hint="lower the model again",
            )
        folder = Path(reference.file).parent
        try:
            if folder not in folders:
                folders[folder] = open_checkpoint(folder)
            arrays[name] = _read(folders[folder], reference)
        except ModelError as error:
            raise ArtifactError(f"weight {name!r}: {error.message}", hint="lower the model again") from error
    if sum(array.nbytes for array in arrays.values()) <= CHECKED_BYTES:
        for name, array in arrays.items():
            _verify(name, weight_map.weights[name], array)
    return arrays


def seeming_writable(array: Array) -> Array:
    """The same memory without numpy's read-only mark, for frameworks that share nothing that bears it, though they never
    write. The given array must outlive the result."""
    pointer = ctypes.cast(array.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
    return np.ctypeslib.as_array(pointer, shape=(array.nbytes,)).view(array.dtype).reshape(array.shape)


def _read(checkpoint: Checkpoint, reference: WeightReference) -> Array:
    entry = checkpoint.entry(reference.tensor)
    if entry.file != Path(reference.file) or entry.dtype != reference.dtype or entry.shape != reference.shape:
        raise ModelError(
            f"tensor {reference.tensor!r} is {entry.dtype} {list(entry.shape)} in {str(entry.file)!r}, "
            f"expected {reference.dtype} {list(reference.shape)} in {reference.file!r}"
        )
    return checkpoint.tensor(reference.tensor)


def _verify(name: str, reference: WeightReference, array: Array) -> None:
    if tensor_digest(array) != reference.digest:
        raise ArtifactError(
            f"weight {name!r}: tensor {reference.tensor!r} of {reference.file!r} does not have the bytes it was lowered with",
            hint="the file changed or is damaged; lower the model again",
        )
