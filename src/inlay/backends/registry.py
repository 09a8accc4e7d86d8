"""Find backends by name through the entry point group `inlay.backends`; ours come in by the same door as plugins."""

from __future__ import annotations

import importlib.metadata
from typing import cast

from inlay.backends.seam import Backend
from inlay.errors import DeviceError, InputError

GROUP = "inlay.backends"


def backend_names() -> tuple[str, ...]:
    """The names of all registered backends, sorted, whether or not their frameworks are installed."""
    return tuple(sorted({entry.name for entry in importlib.metadata.entry_points(group=GROUP)}))


def backend(name: str) -> Backend:
    """The backend registered under this name. Raises InputError that lists the known ones, DeviceError for one whose package
    cannot be imported."""
    for entry in importlib.metadata.entry_points(group=GROUP, name=name):
        try:
            return cast(Backend, entry.load())
        except (ImportError, AttributeError, OSError) as error:
            raise DeviceError(
                f"backend {name} cannot be imported from {entry.value}: {type(error).__name__}: {error}",
                hint="install its package again, or remove it",
            ) from error
    raise InputError(
        f"backend {name!r} is not known, expected one of: {', '.join(backend_names())}", hint="`inlay devices` shows them"
    )
