"""What ONNX Runtime takes, the packages it needs, and the devices beside the CPU that it makes code for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from inlay.backends.refusal import RANDOM, Rules, argument
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Capability

NAME = "onnxruntime"
PACKAGES = ("onnxruntime",)
PRECISIONS = ("float32", "int8")
LOWERED_WITH = ("onnx", "onnx-ir", "onnxscript")  # in the cache key only: an artifact is loaded without them
TENSORRT = "TensorrtExecutionProvider"
TARGETS = {"tensorrt": "NVIDIA GPU by TensorRT"}
NO_RULE = "torch's ONNX exporter has no rule for it"
REFUSED = {
    "aten._grouped_mm": "ONNX has no grouped matrix product; load the model with experts='batched_mm'",
}
DTYPES = {
    "bfloat16": "its CPU provider has no kernels for it",
    "complex64": "ONNX has no complex numbers",
    "complex128": "ONNX has no complex numbers",
}


def supports(program: Program) -> Capability:
    """Every node but those that the tables and rules refuse."""
    return Capability(backend=NAME, nodes=RULES.judge(program))


def runnable() -> tuple[str, ...]:
    """Targets whose provider the installed ONNX Runtime has."""
    if find_spec("onnxruntime") is None:
        return ()
    import onnxruntime

    return ("tensorrt",) if TENSORRT in onnxruntime.get_available_providers() else ()


def _special(node: Node, values: Mapping[str, Tensor]) -> str:
    """Reasons that lie in a node's arguments; found by trying, each against torch."""
    if node.operator.startswith("aten.avg_pool") and argument(node, 6, "divisor_override") is not None:
        return "the exporter leaves out the divisor of its own"
    if node.operator == "aten.repeat.default" and node.inputs and values[node.inputs[0]].shape == ():
        return "the exporter repeats a value without axes wrongly"
    if node.operator == "aten.squeeze.dims" and not argument(node, 1, "dim"):
        return f"{NO_RULE} with no axis"
    return ""


RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes=DTYPES, special=_special)
