"""OpenVINO on the CPU: dynamic sizes, weights bound as constants over mapped memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.manifest import availability, judge
from inlay.backends.openvino.support import NAME, PACKAGES, PAGE, PRECISIONS, supports
from inlay.backends.seam import Executable
from inlay.graph import Program
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest, WeightMap
from inlay.specs.capability import Availability, Capability

__all__ = ["backend"]


class OpenvinoBackend:
    """See the seam."""

    name = NAME
    dynamic = True
    precisions = PRECISIONS
    page = PAGE

    def available(self) -> Availability:
        return availability(NAME, PACKAGES)

    def supports(self, program: Program, *, device: str) -> Capability:
        return supports(program)

    def lower(self, exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
        from inlay.backends.openvino.lower import lower

        return lower(exported, interface=interface, request=request, directory=directory)

    def validate(self, manifest: ArtifactManifest) -> str:
        return judge(manifest, NAME, PACKAGES)

    def load(
        self, directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
    ) -> Executable:
        from inlay.backends.openvino.execute import load

        return load(directory, manifest=manifest, weights=weights, threads=threads, options=options)


backend = OpenvinoBackend()
