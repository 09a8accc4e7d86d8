"""What OpenVINO takes, the packages it needs, and its one way in. Imports no SDK by itself.

Its CPU plug-in computes whole numbers of 64 bits in 32: inputs and weights beyond are refused when they come, numbers written
in the graph when it is lowered; a result that grows beyond inside of the graph is not noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from inlay.backends.refusal import RANDOM, Rules, argument, arguments_of
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Capability

NAME = "openvino"
PACKAGES = ("openvino",)
PRECISIONS = ("float32", "bfloat16", "float16", "int8", "int8-weights")
GROUPS = (128, 64, 32)
"""Numbers of a row of activations that share a scale, the one preferred first: a group must divide the row."""
GROUP_FIGURE = "activations that share a scale"
PAGE = 32
"""Tokens of a KV page: its CPU plug-in's attention over pages knows no other size."""
LEAST, MOST = -(2**31), 2**31 - 1
"""The whole numbers that its CPU plug-in holds."""
NO_RULE = "OpenVINO's PyTorch frontend has no rule for it"
WRONG = "OpenVINO computes it wrongly"
REFUSED = {
    "aten._grouped_mm": "OpenVINO has no grouped matrix product; load the model with experts='batched_mm'",
    "aten.histc": NO_RULE,
}
TO_THE_END = ("aten.slice", "aten.slice_scatter")
"""Operators whose end may be the largest number, which means the end of the axis."""
ARITHMETIC = ("aten.add", "aten.sub", "aten.rsub", "aten.mul", "aten.neg", "aten.abs", "aten.pow", "aten.sum", "aten.cumsum")
DTYPES = {
    "float64": "its CPU plug-in computes it in float32",
    "bfloat16": "its Python interface takes no such array",
    "complex64": "it has no complex numbers",
    "complex128": "it has no complex numbers",
}


def import_openvino() -> Any:
    """The openvino module with its telemetry made impossible: importing openvino imports it, converting reports home."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it now fails; openvino has a stub
    import openvino

    return openvino


def supports(program: Program) -> Capability:
    """Every node but those that the tables and rules refuse."""
    return Capability(backend=NAME, nodes=RULES.judge(program))


def _special(node: Node, values: Mapping[str, Tensor]) -> str:
    """Reasons that lie in a node's arguments; found by trying, each against torch."""
    name = node.operator.rpartition(".")[0]
    if name in ("aten.var", "aten.std") and node.operator.endswith(".correction"):
        if not argument(node, 1, "dim"):
            return f"{WRONG} over all axes: it leaves out the correction"
        if argument(node, 2, "correction", 1) not in (0, 1):
            return "OpenVINO knows a correction of 0 or 1 only"
    if name in ("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d"):
        padded = any(argument(node, 3, "padding", [0]) or [0])
        if argument(node, 4, "ceil_mode", False) and argument(node, 5, "count_include_pad", True) and padded:
            return f"{WRONG} where padding counts and sizes are rounded up"
        if argument(node, 6, "divisor_override") is not None:
            return "OpenVINO has no average with a divisor of its own"
    if name in ("aten.repeat", "aten.linalg_vector_norm") and node.inputs and values[node.inputs[0]].shape == ():
        return f"{WRONG} or not at all for a value without axes"
    if name == "aten.copy" and node.outputs and node.outputs[0].shape == () and node.outputs[0].dtype == "int64":
        return "OpenVINO ends the process where a whole number without axes is copied"
    if node.operator == "aten.squeeze.dims" and not argument(node, 1, "dim"):
        return f"{WRONG} with no axis: it takes all of them"
    if node.operator == "aten.slice.Tensor" and len(arguments_of(node)[0]) < 3:
        return "OpenVINO has no slice without a start"
    if node.outputs and node.outputs[0].dtype in ("int8", "uint8") and name in ARITHMETIC:
        return f"OpenVINO's {node.outputs[0].dtype} stops at its bounds where torch's goes round"
    if name not in TO_THE_END and any(beyond(item) for item in arguments_of(node)[0]):
        return "it has a number beyond 32 bits, in which OpenVINO computes whole numbers"
    return ""


def beyond(value: Any) -> bool:
    """Whether a whole number, or one in a list, does not fit 32 bits."""
    if isinstance(value, list):
        return any(beyond(item) for item in value)
    return isinstance(value, int) and not LEAST <= value <= MOST


RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes=DTYPES, special=_special)
