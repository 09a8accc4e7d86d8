"""XLA through JAX: declared sizes only, compiled when loaded, weights as arguments; for TPUs also without the chip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.manifest import availability, judge
from inlay.backends.seam import Executable
from inlay.backends.xla.support import ENVIRONMENT, LOWERED_WITH, NAME, PACKAGES, machine, supports
from inlay.backends.xla.targets import TARGETS, made_with
from inlay.graph import Program
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest, WeightMap
from inlay.specs.capability import Availability, Capability

__all__ = ["backend"]


class XlaBackend:
    """See the seam."""

    name = NAME
    dynamic = False
    environment = ENVIRONMENT
    lowered_with = LOWERED_WITH
    bakes_threads = True  # machine code beside the portable code is for so many
    targets = TARGETS

    def machine(self) -> dict[str, str]:
        return machine()

    def available(self) -> Availability:
        return availability(NAME, PACKAGES, environment=ENVIRONMENT)

    def supports(self, program: Program, *, device: str) -> Capability:
        return supports(program)

    def lower(self, exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
        from inlay.backends.xla.lower import lower

        return lower(exported, interface=interface, request=request, directory=directory)

    def validate(self, manifest: ArtifactManifest) -> str:
        return judge(manifest, NAME, PACKAGES, environment=ENVIRONMENT, extra=made_with(manifest.target))

    def load(
        self, directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
    ) -> Executable:
        from inlay.backends.xla.execute import load

        return load(directory, manifest=manifest, weights=weights, threads=threads, options=options)


backend = XlaBackend()
