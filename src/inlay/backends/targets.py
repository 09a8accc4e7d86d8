"""Kinds of devices that need not be here: which backend makes code for which, and what of it can be loaded.

The lists come from the backends themselves (`targets` and `runnable` in the seam).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from inlay.backends.registry import backend, backend_names
from inlay.backends.seam import Backend
from inlay.errors import ArtifactError, InputError, UnsupportedError
from inlay.specs.artifact import ArtifactManifest

BUILT_NOT_RUN = "built, not run"


def targets_of(found: Backend) -> Mapping[str, str]:
    """The targets of one backend, each with what it is."""
    named: Mapping[str, str] = getattr(found, "targets", {})
    return named


def runnable_of(found: Backend) -> Collection[str]:
    """Targets whose code this backend can also load, where such a device is."""
    named: Collection[str] = getattr(found, "runnable", ())
    return named


def targets() -> dict[str, tuple[str, str]]:
    """Every target: its backend, and what it is. A name belongs to the first backend that lists it."""
    found: dict[str, tuple[str, str]] = {}
    for name in backend_names():
        for target, text in targets_of(backend(name)).items():
            found.setdefault(target, (name, text))
    return dict(sorted(found.items()))


def target_backend(target: str) -> str:
    """The backend that makes code for this target. Raises InputError that lists the known ones."""
    known = targets()
    if target not in known:
        raise InputError(
            f"target {target!r} is not known, expected one of: {', '.join(known)}", hint="`inlay compile --help` names them"
        )
    return known[target][0]


def check_target(found: Backend, target: str) -> None:
    """Raise UnsupportedError for a target that this backend does not list; the empty one is this machine."""
    if target and target not in targets_of(found):
        known = ", ".join(targets_of(found)) or "none"
        others = ", ".join(name for name, (owner, _) in targets().items() if owner != found.name)
        raise UnsupportedError(
            f"backend {found.name} makes no code for target {target!r}, expected one of: {known}",
            hint=f"other backends have: {others}" if others else None,
        )


def check_loadable(manifest: ArtifactManifest, found: Backend, *, where: str) -> None:
    """Raise ArtifactError for an artifact whose target cannot be loaded on this machine; `where` names it."""
    if manifest.target and manifest.target not in runnable_of(found):
        text = targets_of(found).get(manifest.target, "a device that is not here")
        raise ArtifactError(
            f"{where} is for target {manifest.target!r} ({text}): {BUILT_NOT_RUN}",
            hint="take its folder to a machine with that device, or compile without a target to run it here",
        )
