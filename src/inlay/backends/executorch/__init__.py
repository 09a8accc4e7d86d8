"""ExecuTorch on the CPU: XNNPACK where it takes a node, portable kernels elsewhere; declared sizes, weights bound at load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.executorch.support import ENVIRONMENT, LOWERED_WITH, NAME, PACKAGES, supports
from inlay.backends.manifest import availability, judge
from inlay.backends.seam import Executable
from inlay.graph import Program
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest, WeightMap
from inlay.specs.capability import Availability, Capability

__all__ = ["backend"]


class ExecutorchBackend:
    """See the seam."""

    name = NAME
    dynamic = False
    environment = ENVIRONMENT
    lowered_with = LOWERED_WITH

    def available(self) -> Availability:
        return availability(NAME, PACKAGES, environment=ENVIRONMENT)

    def supports(self, program: Program, *, device: str) -> Capability:
        return supports(program)

    def lower(self, exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
        from inlay.backends.executorch.lower import lower

        return lower(exported, interface=interface, request=request, directory=directory)

    def validate(self, manifest: ArtifactManifest) -> str:
        return judge(manifest, NAME, PACKAGES, environment=ENVIRONMENT)

    def load(
        self, directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
    ) -> Executable:
        from inlay.backends.executorch.execute import load

        return load(directory, manifest=manifest, weights=weights, threads=threads, options=options)


backend = ExecutorchBackend()
