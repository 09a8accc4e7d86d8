"""Measured figures on disk: one file a kind of device, one a pair of kinds, each written whole. Checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

from inlay.errors import ArtifactError
from inlay.specs.roofline import DeviceProfile, MeasuredLink

REMEDY = "`inlay devices --measure` measures it again"
Figures = TypeVar("Figures", DeviceProfile, MeasuredLink)


def profile_path(root: Path, *, kind: str, chip: str) -> Path:
    """Where the profile of a kind of device lies in a cache; `chip` is what the machine calls itself, whatever the kind."""
    return root / "profiles" / "devices" / f"{_digest({'kind': kind, 'chip': chip})}.json"


def link_path(root: Path, *, kinds: tuple[str, str], relation: str, chip: str) -> Path:
    """Where the link between two kinds lies; the same for both directions."""
    return root / "profiles" / "links" / f"{_digest({'kinds': sorted(kinds), 'relation': relation, 'chip': chip})}.json"


def read_figures(path: Path, kind: type[Figures]) -> Figures | None:
    """What was kept, or None where nothing was. Raises ArtifactError that names the file where it cannot be believed."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
        found.check()
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"measured figures in {str(path)!r} cannot be read: {error}", hint=REMEDY) from error
    except ArtifactError as error:
        raise ArtifactError(f"measured figures in {str(path)!r}: {error.message}", hint=REMEDY) from error
    return found


def write_figures(path: Path, found: DeviceProfile | MeasuredLink) -> None:
    """Keep them, in place of what was there. Raises ArtifactError for figures that `check` refuses or a full disk."""
    found.check()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(found, order="sorted")))
        os.replace(part, path)
    except OSError as error:
        raise ArtifactError(f"measured figures cannot be kept in {str(path)!r}: {error}", hint="set INLAY_CACHE") from error


def _digest(contents: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:32]
