"""What ONNX Runtime takes, and the packages it needs. Imports no SDK."""

from __future__ import annotations

from inlay.graph import Program
from inlay.specs.capability import Capability, NodeSupport

NAME = "onnxruntime"
PACKAGES = ("onnxruntime",)
LOWERED_WITH = ("onnx", "onnx-ir", "onnxscript")  # in the cache key only: an artifact is loaded without them
REFUSED = {
    "aten._grouped_mm.default": "ONNX has no grouped matrix product; load the model with experts='batched_mm'",
    "aten.view_as_complex.default": "ONNX has no complex numbers",
    "aten.polar.default": "ONNX has no complex numbers",
}


def supports(program: Program) -> Capability:
    """Every node but the few that torch's ONNX exporter has no rule for."""
    nodes = tuple(
        NodeSupport(node=node.name, supported=node.operator not in REFUSED, reason=REFUSED.get(node.operator, ""))
        for node in program.nodes
    )
    return Capability(backend=NAME, nodes=nodes)
