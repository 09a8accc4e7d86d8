"""Describe a lowered artifact and judge whether it still fits this machine. Shared by the backends; imports no SDK."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from inlay.backends.environment import environment_folders, find_environment, package_version
from inlay.errors import UnsupportedError
from inlay.specs.artifact import MANIFEST_VERSION, ArtifactManifest, Interface, LowerRequest
from inlay.specs.capability import Availability
from inlay.specs.precision import PRECISIONS, Precision, precision_name

LOWERING_VERSION = "2"  # raised when an older artifact must not be loaded any more


def availability(backend: str, packages: tuple[str, ...], *, environment: str = "") -> Availability:
    """Available where all packages are installed; the first one is the framework, and the one whose version counts.

    `environment` is the one that the backend declares: the answer is about it, whichever process asks.
    """
    found, hint = find_environment(environment), f"make environment-{environment}" if environment else ""
    fault = "" if found is None else found.fault()
    absent = next((package for package in packages if package_version(package, environment) is None), None)
    if not fault and absent is not None:
        fault = f"{absent} is not installed"
        if found is not None:
            fault += f" in {str(found.folder)!r}"
        elif environment:
            folders = " or ".join(repr(str(folder)) for folder in environment_folders())
            fault += f", and there is no environment {environment!r} in {folders}"
    if fault:
        return Availability(backend=backend, available=False, framework=packages[0], reason=fault, hint=hint)
    version = package_version(packages[0], environment) or ""
    return Availability(backend=backend, available=True, framework=packages[0], version=version)


def fingerprint(packages: tuple[str, ...], *, environment: str = "", extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What an artifact depends on when it is loaded: package versions, our lowering, the machine, what the backend adds."""
    versions = {package: package_version(package, environment) or "absent" for package in packages}
    return {**versions, "inlay-lowering": LOWERING_VERSION, "machine": platform.machine(), **(extra or {})}


def judge(
    manifest: ArtifactManifest,
    backend: str,
    packages: tuple[str, ...],
    *,
    environment: str = "",
    extra: Mapping[str, str] | None = None,
) -> str:
    """ "optimal" where the fingerprint is what is here now, "recompile" where it is not, "unsupported" for a stranger."""
    if manifest.backend != backend:
        return "unsupported"
    if manifest.version != MANIFEST_VERSION:
        return "recompile"
    return "optimal" if manifest.fingerprint == fingerprint(packages, environment=environment, extra=extra) else "recompile"


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(
    directory: Path,
    *,
    backend: str,
    packages: tuple[str, ...],
    interface: Interface,
    request: LowerRequest,
    weights: Iterable[str],
    environment: str = "",
    extra: Mapping[str, str] | None = None,
    figures: Mapping[str, int | float] | None = None,
) -> ArtifactManifest:
    """The manifest of a lowered program whose code is all that lies in `directory`. Raises UnsupportedError where it was to
    hold weights in 8 bit and holds none."""
    names = tuple(weights)
    if request.precision.weights == "int8" and not any(name.endswith("_int8") for name in names):
        raise UnsupportedError(f"{backend} was asked for weights in int8 and given none: the program was not quantised")
    return ArtifactManifest(
        version=MANIFEST_VERSION,
        backend=backend,
        fingerprint=fingerprint(packages, environment=environment, extra=extra),
        precision=request.precision,
        inputs=interface.inputs,
        outputs=interface.outputs,
        weights=names,
        files={path.name: file_digest(path) for path in sorted(directory.iterdir()) if path.is_file()},
        stage=interface.stage,
        page=interface.page,
        buckets=request.buckets,
        points=request.points,
        ranges=request.ranges,
        target=request.target,
        figures=dict(figures or {}),
    )


def need_precision(
    backend: str, precision: Precision, *, names: tuple[str, ...] = ("float32",), kv: tuple[str, ...] = ("float32",)
) -> None:
    """Raise UnsupportedError for a precision that this backend would not obey: `names` are those that it has."""
    if precision.kv not in kv:
        raise UnsupportedError(f"{backend} cannot use {precision.kv} for kv, expected {' or '.join(kv)}")
    if all(msgspec.structs.replace(precision, kv=item.kv) != item for item in (PRECISIONS[name] for name in names)):
        raise UnsupportedError(f"{backend} cannot compute in {precision_name(precision)}, it has {', '.join(names)}")
