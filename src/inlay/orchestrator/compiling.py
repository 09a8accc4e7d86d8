"""Sees to it that everything a deployment runs is lowered: looks in the cache, starts a compile process for the rest."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends import backend, backend_names
from inlay.backends.environment import environment_of, home_of, package_version, python_of, remedy
from inlay.errors import ArtifactError, DeploymentError, InlayError, UnsupportedError
from inlay.models import model_digest
from inlay.orchestrator.fitting import LoweredRegion
from inlay.runtime import Cache, artifact_key, find_artifact, find_weights, read_manifest, read_weight_map, weight_bytes
from inlay.specs.artifact import LowerRequest, ShapeBuckets
from inlay.specs.deployment import Deployment, RegionPlacement, Role
from inlay.specs.precision import PRECISIONS, precision_name
from inlay.workers import WorkerSpec, start

COMPILER = "compile"
INSTALL = "pip install 'inlay[torch,openvino,onnxruntime]'"
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Lowered:
    """What a device process loads: the artifact's folder, the folder of the weight map, the framework's version."""

    directory: Path
    weights: Path
    framework_version: str


def ensure_lowered(deployment: Deployment, *, progress: Callable[[str], None]) -> dict[str, Lowered]:
    """By process. A compile process is started only where something is missing, so a second start needs no torch."""
    found: dict[str, Lowered] = {}
    for folder in dict.fromkeys(deployment.folder(role) for role in deployment.roles):
        roles = [role for role in deployment.roles if deployment.folder(role) == folder]
        found |= _ensure(deployment, Path(folder), roles, progress)
    return found


def lowered_regions(lowered: Mapping[str, Lowered]) -> dict[str, LoweredRegion]:
    """What the manifests tell of the memory that each process will need."""
    found = {}
    for process, item in lowered.items():
        manifest, weight_map = read_manifest(item.directory), read_weight_map(item.weights)
        if manifest.stage is not None and weight_map is not None:
            found[process] = LoweredRegion(stage=manifest.stage, weights=weight_bytes(manifest, weight_map))
    return found


def _ensure(deployment: Deployment, folder: Path, roles: Sequence[Role], progress: Callable[[str], None]) -> dict[str, Lowered]:
    """What the processes of these roles load, all of one model."""
    cache = Cache.default()
    regions = {role.process(region): region for role in roles for region in role.regions}
    slots = {role.process(region): deployment.slots_of(role) for role in roles for region in role.regions}
    versions = {place: check_available(region) for place, region in regions.items()}
    requests = {place: lower_request(deployment, region, slots=slots[place]) for place, region in regions.items()}
    keys = {
        place: artifact_key(folder, backend=backend(region.backend), request=requests[place])
        for place, region in regions.items()
    }
    dtypes = {place: region.precision.weights for place, region in regions.items()}
    mapped = {dtype: find_weights(cache, folder, dtype=dtype) for dtype in set(dtypes.values())}
    missing = [place for place, key in keys.items() if not _usable(cache, key, progress) or mapped[dtypes[place]] is None]
    if missing:
        wanted = {keys[place]: (regions[place].backend, requests[place]) for place in missing}
        for python, some in _by_python(list(wanted.values())).items():
            _compile(folder, some, cache, progress, python)
    digest = model_digest(folder)
    return {
        place: Lowered(cache.artifact(key), cache.weights(digest, dtype=dtypes[place]), versions[place])
        for place, key in keys.items()
    }


def lower_request(deployment: Deployment, region: RegionPlacement, *, slots: int | None = None) -> LowerRequest:
    """What is asked of the backend: the region's layers and precision; buckets for one that runs declared sizes only.
    `slots` are those of its role, by default the deployment's."""
    threads = max(1, len(deployment.cluster.device(region.device).cores))
    buckets = None
    if not backend(region.backend).dynamic:
        buckets = ShapeBuckets(
            batches=_doubling(slots or deployment.slots), widths=_doubling(deployment.chunk), capacities=deployment.capacities
        )
    page = getattr(backend(region.backend), "page", 0) if region.runner == "paged" else 0
    return LowerRequest(precision=region.precision, buckets=buckets, threads=threads, layers=region.layers, page=page)


def _doubling(largest: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the largest itself."""
    sizes = []
    size = 1
    while size < largest:
        sizes.append(size)
        size *= 2
    return (*sizes, largest)


def check_available(region: RegionPlacement) -> str:
    """The version of the region's framework. Raises DeploymentError where it is absent, UnsupportedError for a precision that
    it does not have."""
    found = backend(region.backend).available()
    names = _precisions(region.backend)
    plain = msgspec.structs.replace(region.precision, kv="float32")
    if plain not in [PRECISIONS[name] for name in names]:
        others = [
            name for name in backend_names() if plain in [PRECISIONS[item] for item in _precisions(name)] and name != "null"
        ]
        raise UnsupportedError(
            f"{region.place} asks for {precision_name(plain)}, but {region.backend} has {', '.join(names)}",
            hint=f"backends that have it: {', '.join(others)}" if others else "choose one of them",
        )
    if region.runner == "paged" and not getattr(backend(region.backend), "page", 0):
        paged = [name for name in backend_names() if getattr(backend(name), "page", 0)]
        raise UnsupportedError(
            f"{region.place} asks for a paged runner, but {region.backend} has no attention over pages",
            hint=f"backends that have it: {', '.join(paged)}",
        )
    if not found.available:
        raise DeploymentError(
            f"backend {region.backend} at {region.place} is not available here: {found.reason}",
            hint=found.hint or f"{INSTALL}, or choose another; `inlay devices` shows what there is",
        )
    return found.version


def _precisions(name: str) -> tuple[str, ...]:
    """Names of the precisions that a backend lowers to."""
    found: tuple[str, ...] = getattr(backend(name), "precisions", ("float32",))
    return found


def _usable(cache: Cache, key: str, progress: Callable[[str], None]) -> bool:
    """Whether the cache holds this artifact whole; a damaged one is removed, said aloud, and lowered again."""
    try:
        return find_artifact(cache, key) is not None
    except ArtifactError as error:
        progress(f"{error.message}: lowering it again")
        shutil.rmtree(cache.artifact(key), ignore_errors=True)
        return False


def _by_python(wanted: Sequence[tuple[str, LowerRequest]]) -> dict[str, list[tuple[str, LowerRequest]]]:
    """What is to be lowered, by the interpreter of the backend's environment."""
    found: dict[str, list[tuple[str, LowerRequest]]] = {}
    for name, request in wanted:
        found.setdefault(python_of(name), []).append((name, request))
    return found


def _compile(
    folder: Path, wanted: Sequence[tuple[str, LowerRequest]], cache: Cache, progress: Callable[[str], None], python: str
) -> None:
    """One compile process for what is missing of one environment; its steps are passed on, its error raised here."""
    _check_torch(wanted[0][0])
    with tempfile.TemporaryDirectory(prefix="inlay-compile-") as directory:
        result, steps = Path(directory) / "result.json", Path(directory) / "progress.jsonl"
        config = {
            "model": str(folder),
            "wanted": msgspec.to_builtins(tuple(wanted)),
            "cache": str(cache.root),
            "result": str(result),
            "progress": str(steps),
        }
        spec = WorkerSpec(
            name=COMPILER,
            program="inlay.runtime.lower:main",
            run_directory=directory,
            config=config,
            python=python,
            threads=2,
        )
        worker = start(spec)
        try:
            shown = 0
            while worker.alive():
                shown = _show(steps, shown, progress)
                time.sleep(POLL_SECONDS)
            _show(steps, shown, progress)
            if not result.exists():
                raise worker.lost()
        finally:
            worker.stop()
        outcome: dict[str, Any] = json.loads(result.read_text())
    if "error" in outcome:
        error = outcome["error"]
        failure = UnsupportedError if error["code"] == UnsupportedError.code else _tree(error["code"])
        raise failure(f"lowering failed: {error['message']}", hint=error["hint"])


def _tree(code: str) -> type[InlayError]:
    """The class of the error tree with this code."""
    pending: list[type[InlayError]] = [InlayError]
    while pending:
        item = pending.pop()
        if item.code == code and item.__init__ is InlayError.__init__:
            return item
        pending += item.__subclasses__()
    return InlayError


def _show(steps: Path, shown: int, progress: Callable[[str], None]) -> int:
    """Pass on the steps begun since the last look; how many lines have been seen."""
    lines = steps.read_text().splitlines() if steps.exists() else []
    for line in lines[shown:]:
        step = json.loads(line)
        if step["state"] == "begun":
            progress(f"compile: {step['step']}")
    return len(lines)


def _check_torch(backend_name: str) -> None:
    home = home_of(backend_name)
    absent = [package for package in ("torch", "transformers") if package_version(package, home) is None]
    if absent:
        found = environment_of(backend_name)
        where = "here" if found is None else f"in {str(found.folder)!r}"
        raise UnsupportedError(
            f"lowering a model needs {' and '.join(absent)}, which is not installed {where}",
            hint="pip install 'inlay[torch]'" if found is None else remedy(found.name),
        )
