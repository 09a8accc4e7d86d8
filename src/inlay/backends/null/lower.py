"""Lower to nothing: the manifest alone says what the ports are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inlay.backends.manifest import describe
from inlay.backends.null.support import NAME, PACKAGES
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write nothing; see the seam. Any precision and buckets are recorded as asked."""
    return describe(directory, backend=NAME, packages=PACKAGES, interface=interface, request=request, weights=())
