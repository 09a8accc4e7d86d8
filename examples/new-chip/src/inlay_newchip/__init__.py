"""The backend: six methods. Importing this loads nothing of the chip's own software."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inlay.backends import Executable
from inlay.backends.manifest import availability, judge
from inlay.graph import Program
from inlay.specs.artifact import ArtifactManifest
from inlay.specs.capability import Availability, Capability
from inlay_newchip.support import NAME, PACKAGES, RULES


class NewChipBackend:
    """See inlay.backends.seam."""

    name, dynamic, lowered_with = NAME, False, PACKAGES

    def available(self) -> Availability:
        return availability(NAME, PACKAGES)

    def supports(self, program: Program, *, device: str) -> Capability:
        return Capability(backend=NAME, nodes=RULES.judge(program), dynamic=False, needs_torch=True)

    def lower(self, exported: Any, **asked: Any) -> ArtifactManifest:
        from inlay_newchip.lower import lower

        return lower(exported, **asked)

    def validate(self, manifest: ArtifactManifest) -> str:
        return judge(manifest, NAME, PACKAGES)

    def load(self, directory: Path, **given: Any) -> Executable:
        from inlay_newchip.execute import load

        return load(directory, **given)


backend = NewChipBackend()
