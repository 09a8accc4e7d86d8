"""Lowers through backends and runs the result. `runtime.lower` is the torch door of this room."""

from __future__ import annotations

from inlay.runtime.cache import Cache, artifact_key, find_artifact, find_weights, read_manifest
from inlay.runtime.region import LoadedRegion, load_region, weight_bytes
from inlay.runtime.weights import read_weight_map

__all__ = [
    "Cache",
    "LoadedRegion",
    "artifact_key",
    "find_artifact",
    "find_weights",
    "load_region",
    "read_manifest",
    "read_weight_map",
    "weight_bytes",
]
