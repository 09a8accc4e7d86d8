"""A lowered Region as a device process holds it: the loaded executable with its manifest. No torch of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inlay.backends import Executable
from inlay.errors import ArtifactError
from inlay.models import numpy_dtype
from inlay.runtime.cache import read_manifest
from inlay.runtime.load import load_stage_executable
from inlay.runtime.weights import read_weight_map
from inlay.specs.artifact import ArtifactManifest, WeightMap
from inlay.specs.stage import StageShape


@dataclass(frozen=True, slots=True)
class LoadedRegion:
    """What `load_region` gives. The caller owns the executable and closes it."""

    executable: Executable
    manifest: ArtifactManifest
    stage: StageShape
    weights: int
    """Bytes of its weights as mapped."""


def load_region(directory: Path, *, weights: Path, backend: str, threads: int, options: Mapping[str, str]) -> LoadedRegion:
    """Read, check and load a stage from an artifact's folder and a weight map's. Raises ArtifactError."""
    manifest = read_manifest(directory)
    weight_map = read_weight_map(weights)
    if weight_map is None:
        raise ArtifactError(
            f"weight map in {str(weights)!r} is absent or names files that are gone", hint="lower the model again"
        )
    if manifest.stage is None:
        raise ArtifactError(f"artifact {str(directory)!r} is no language model stage", hint="lower the model again")
    executable = load_stage_executable(
        directory, manifest=manifest, weight_map=weight_map, backend_name=backend, threads=threads, options=options
    )
    return LoadedRegion(executable, manifest, manifest.stage, weight_bytes(manifest, weight_map))


def weight_bytes(manifest: ArtifactManifest, weight_map: WeightMap) -> int:
    """Bytes of the tensors that an artifact binds, each counted once. Raises ArtifactError for one that the map lacks."""
    found: dict[tuple[str, str], int] = {}
    for name in manifest.weights:
        if name not in weight_map.weights:
            raise ArtifactError(f"weight {name!r} is not in the weight map", hint="lower the model again")
        item = weight_map.weights[name]
        found[item.file, item.tensor] = numpy_dtype(item.dtype).itemsize * math.prod(item.shape)
    return sum(found.values())
