"""Load a lowered stage in a device process: validate first, then the backend's own load. No torch of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inlay.backends import Executable, backend
from inlay.backends.targets import check_loadable
from inlay.errors import ArtifactError, DeviceError, InlayError
from inlay.runtime.cache import read_manifest
from inlay.specs.artifact import ArtifactManifest, WeightMap


def load_stage_executable(
    directory: Path,
    *,
    manifest: ArtifactManifest,
    weight_map: WeightMap,
    backend_name: str,
    threads: int = 1,
    options: Mapping[str, str] | None = None,
) -> Executable:
    """A runnable stage on `threads` threads, weights bound from the map. The caller owns it and closes it.

    Raises ArtifactError where the artifact was made by another backend, for other versions than those here, or for a kind
    of device whose code cannot be loaded here; DeviceError that names the backend where its framework does not come up.
    """
    found = backend(backend_name)
    verdict = found.validate(manifest)
    if verdict == "unsupported":
        raise ArtifactError(f"artifact {str(directory)!r} is of backend {manifest.backend!r}, expected {backend_name!r}")
    if verdict != "optimal":
        made = ", ".join(f"{name} {version}" for name, version in manifest.fingerprint.items())
        raise ArtifactError(
            f"artifact {str(directory)!r} was lowered with {made}, which is not what is here", hint="lower the model again"
        )
    check_loadable(manifest, found, where=f"artifact {str(directory)!r}")
    try:
        return found.load(directory, manifest=manifest, weights=weight_map, threads=threads, options=options or {})
    except InlayError:
        raise
    except Exception as error:  # process edge: a missing driver, or whatever else a framework raises when it does not come up
        text = " ".join(str(error).split())[:300]
        raise DeviceError(
            f"backend {backend_name} cannot load: its framework failed with {type(error).__name__}: {text}",
            hint=f"see that {found.available().framework} works in the environment of this backend: `inlay devices`",
        ) from error


def load_executable(
    directory: Path, *, weight_map: WeightMap, backend_name: str, threads: int = 1, options: Mapping[str, str] | None = None
) -> Executable:
    """As `load_stage_executable`, for any artifact, its files checked against their digests first."""
    return load_stage_executable(
        directory,
        manifest=read_manifest(directory),
        weight_map=weight_map,
        backend_name=backend_name,
        threads=threads,
        options=options,
    )
