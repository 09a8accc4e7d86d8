"""Everything a CPU framework is not, so that no seam assumes host pointers, dynamic sizes or one KV layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.contrary.support import NAME, PACKAGES, PRECISIONS, supports
from inlay.backends.manifest import availability, judge
from inlay.backends.seam import Executable
from inlay.graph import Program
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest, WeightMap
from inlay.specs.capability import Availability, Capability

__all__ = ["backend"]


class ContraryBackend:
    """See the seam."""

    name = NAME
    dynamic = False
    precisions = PRECISIONS
    limits_memory = True  # it takes the option `memory` and holds itself to it

    def available(self) -> Availability:
        return availability(NAME, PACKAGES)

    def supports(self, program: Program, *, device: str) -> Capability:
        return supports(program)

    def lower(self, exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
        from inlay.backends.contrary.lower import lower

        return lower(exported, interface=interface, request=request, directory=directory)

    def validate(self, manifest: ArtifactManifest) -> str:
        return judge(manifest, NAME, PACKAGES)

    def load(
        self, directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
    ) -> Executable:
        from inlay.backends.contrary.execute import load

        return load(directory, manifest=manifest, weights=weights, threads=threads, options=options)


backend = ContraryBackend()
