"""PyTorch's Inductor, ahead of time: C++ compiled for this CPU, dynamic sizes, weights passed in over mapped memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.inductor.support import NAME, PACKAGES, availability, machine, supports
from inlay.backends.manifest import judge
from inlay.backends.seam import Executable
from inlay.graph import Program
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest, WeightMap
from inlay.specs.capability import Availability, Capability

__all__ = ["backend"]


class InductorBackend:
    """See the seam."""

    name = NAME
    dynamic = True

    def available(self) -> Availability:
        return availability()

    def supports(self, program: Program, *, device: str) -> Capability:
        return supports(program)

    def machine(self) -> dict[str, str]:
        return machine()

    def lower(self, exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
        from inlay.backends.inductor.lower import lower

        return lower(exported, interface=interface, request=request, directory=directory)

    def validate(self, manifest: ArtifactManifest) -> str:
        return judge(manifest, NAME, PACKAGES, extra=machine())

    def load(
        self, directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
    ) -> Executable:
        from inlay.backends.inductor.execute import load

        return load(directory, manifest=manifest, weights=weights, threads=threads, options=options)


backend = InductorBackend()
