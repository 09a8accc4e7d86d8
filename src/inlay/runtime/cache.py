"""The cache of lowered artifacts and weights: keys that are known without capturing, verified reads. No torch.

The engine asks here first; only a miss starts a compile process (`runtime.lower`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends import Backend
from inlay.backends.environment import package_version
from inlay.backends.manifest import LOWERING_VERSION, file_digest
from inlay.errors import ArtifactError, ModelError
from inlay.models import Checkpoint, model_digest, open_checkpoint
from inlay.runtime.weights import read_weight_map
from inlay.specs.artifact import ArtifactManifest, LowerRequest, WeightMap

MANIFEST_FILE = "manifest.json"
KEY_FILE = "key.json"
NOT_THE_GRAPH = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
SOURCES = (
    "models/torch.py", "models/stage.py", "models/torch_paged.py", "models/paged.py", "graph/capture.py", "graph/extract.py",
    "graph/attention.py", "graph/quantise.py", "runtime/layers.py", "backends/manifest.py",
)  # fmt: skip
NOT_THE_CODE = ("__init__.py", "execute.py")
TOOLS = ("torch", "transformers")


@dataclass(frozen=True)
class Cache:
    """A cache folder with `artifacts/` and `weights/`."""

    root: Path

    @classmethod
    def default(cls, environment: Mapping[str, str] = os.environ) -> Cache:
        """The folder that INLAY_CACHE names, else ~/.cache/inlay."""
        return cls(Path(environment.get("INLAY_CACHE") or "~/.cache/inlay").expanduser())

    def artifact(self, key: str) -> Path:
        """Where the artifact of this key lies or will lie."""
        return self.root / "artifacts" / key

    def weights(self, digest: str, *, dtype: str = "float32") -> Path:
        """Where the weights of a model lie, as this version of our tools names and shapes them."""
        return self.root / "weights" / f"{digest[:32]}-{dtype}-{digest_of(tool_versions(()))[:8]}"


def artifact_key(
    folder: Path, *, backend: Backend, request: LowerRequest, checkpoint: Checkpoint | None = None, experts: str = "batched_mm"
) -> str:
    """The key of an artifact: sha256 over everything that the lowered code depends on and that needs no capture.

    config.json less what does not touch the graph; names, dtypes and shapes of the checkpoint's tensors (not their
    values: weights are bound at load); versions of torch, transformers and the framework; our own lowering sources;
    backend, request (threads only where a backend bakes them in) and platform.
    """
    return digest_of(key_contents(folder, backend=backend, request=request, checkpoint=checkpoint, experts=experts))


def key_contents(
    folder: Path, *, backend: Backend, request: LowerRequest, checkpoint: Checkpoint | None = None, experts: str = "batched_mm"
) -> dict[str, Any]:
    """What `artifact_key` hashes, as plain data; it lies beside the artifact as key.json."""
    held = checkpoint or open_checkpoint(folder)
    tensors = {name: [held.entry(name).dtype, list(held.entry(name).shape)] for name in held}
    asked = msgspec.json.decode(msgspec.json.encode(request))
    if not getattr(backend, "bakes_threads", False):
        del asked["threads"]
    extra = (backend.available().framework, *getattr(backend, "lowered_with", ()))
    return {
        "config": {name: value for name, value in _read_config(folder).items() if name not in NOT_THE_GRAPH},
        "tensors": tensors,
        "tools": tool_versions(extra, environment=getattr(backend, "environment", "")),
        "sources": source_digest(backend.name, type(backend).__module__),
        "backend": backend.name,
        "request": asked,
        "experts": experts,
        "platform": [platform.system(), platform.machine()],
        "machine": getattr(backend, "machine", dict)(),
    }


def find_artifact(cache: Cache, key: str) -> tuple[Path, ArtifactManifest] | None:
    """The artifact of this key with every file checked against the manifest's digest, or None where there is none.

    Raises ArtifactError that names the damaged file.
    """
    directory = cache.artifact(key)
    if not directory.is_dir():
        return None
    return directory, read_manifest(directory)


def read_manifest(directory: Path) -> ArtifactManifest:
    """The manifest of an artifact, after its files have been checked. Raises ArtifactError naming the file."""
    path = directory / MANIFEST_FILE
    remedy = f"delete {directory} and lower again"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=ArtifactManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"artifact file {str(path)!r} cannot be read: {error}", hint=remedy) from error
    for name, digest in manifest.files.items():
        file = directory / name
        if not file.is_file():
            raise ArtifactError(f"artifact file {str(file)!r} is missing", hint=remedy)
        found = file_digest(file)
        if found != digest:
            raise ArtifactError(f"artifact file {str(file)!r} has digest {found[:12]}, expected {digest[:12]}", hint=remedy)
    return manifest


def find_weights(cache: Cache, folder: Path, *, dtype: str = "float32") -> WeightMap | None:
    """The published weight map of the model in this folder, products' weights in this type, or None."""
    return read_weight_map(cache.weights(model_digest(folder), dtype=dtype))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"model file {str(path)!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"model file {str(path)!r} holds a {type(found).__name__}, expected an object")
    return found


def tool_versions(extra: tuple[str, ...], *, environment: str = "") -> dict[str, str]:
    """Versions of what makes code, in the environment that makes it: torch, transformers, these packages, and our own
    lowering."""
    versions = {package: package_version(package, environment) or "absent" for package in (*TOOLS, *extra) if package}
    return {**versions, "inlay-lowering": LOWERING_VERSION}


def source_digest(name: str, module: str, *, sources: tuple[str, ...] | None = None) -> str:
    """sha256 over the sources that make the code of an artifact: ours, and the backend's own but for what loads it."""
    root = Path(__file__).parents[1]
    found = [root / item for item in (SOURCES if sources is None else sources)]
    if module.startswith("inlay.backends."):
        folder = root / "backends" / name
        found += [path for path in sorted(folder.rglob("*.py")) if path.name not in NOT_THE_CODE]
    digest = hashlib.sha256()
    for path in found:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def digest_of(contents: Mapping[str, Any]) -> str:
    """sha256 of plain data."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
