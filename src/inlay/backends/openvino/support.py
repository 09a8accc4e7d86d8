"""What OpenVINO takes, the packages it needs, and its one way in. Imports no SDK by itself."""

from __future__ import annotations

import sys
from typing import Any

from inlay.graph import Program
from inlay.specs.capability import Capability, NodeSupport

NAME = "openvino"
PACKAGES = ("openvino",)
REFUSED = {
    "aten._grouped_mm.default": "OpenVINO has no grouped matrix product; load the model with experts='batched_mm'",
}


def import_openvino() -> Any:
    """The openvino module with its telemetry made impossible: importing openvino imports it, converting reports home."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it now fails; openvino has a stub
    import openvino

    return openvino


def supports(program: Program) -> Capability:
    """Every node but the few that its PyTorch frontend has no rule for."""
    nodes = tuple(
        NodeSupport(node=node.name, supported=node.operator not in REFUSED, reason=REFUSED.get(node.operator, ""))
        for node in program.nodes
    )
    return Capability(backend=NAME, nodes=nodes)
