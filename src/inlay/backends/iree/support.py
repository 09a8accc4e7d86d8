"""What IREE takes, the packages it needs, and the CPU that its code is for. Imports no SDK."""

from __future__ import annotations

from collections.abc import Mapping

from inlay.backends.processor import instructions
from inlay.backends.refusal import RANDOM, Rules, argument
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Capability

NAME = "iree"
ENVIRONMENT = "iree"
PACKAGES = ("iree-base-runtime", "iree-base-compiler")
LOWERED_WITH = ("iree-base-compiler",)
MOST_OF_TOPK = 16
NO_RULE = ("aten.cummax", "aten.cummin", "aten.sort.stable", "aten.argsort.stable")
REFUSED = {
    **dict.fromkeys(NO_RULE, "its importer has no rule for it"),
    "aten.logcumsumexp": "its compiler takes exponentials of the numbers as they are, which overflow",
}
TYPED = {
    "aten.max_pool3d": {"int64": "its compiler crashes"},
    **{name: {"bool": "its compiler orders them wrongly"} for name in ("aten.sort", "aten.argsort", "aten.msort")},
}
POWERS = ("aten.pow.Tensor_Tensor", "aten.pow.Scalar")
POOLS_WITH_PLACES = tuple(f"aten.max_pool{axes}d_with_indices.default" for axes in (1, 2, 3))
DTYPES = {
    "float64": "its compiler computes it in float32 by default",
    "complex64": "its importer has no complex inputs",
    "complex128": "its importer has no complex inputs",
}


def machine(target: str = "") -> dict[str, str]:
    """The instructions of this CPU, where the code is for it alone."""
    return {} if target else {"instructions": instructions()}


def supports(program: Program) -> Capability:
    """Every node but those that the tables and rules refuse."""
    return Capability(backend=NAME, nodes=RULES.judge(program))


def _special(node: Node, values: Mapping[str, Tensor]) -> str:
    """Reasons that lie in a node's arguments; found by trying, each against torch."""
    if node.operator.startswith("aten.topk"):
        count = argument(node, 1, "k")
        if not isinstance(count, int) or count > MOST_OF_TOPK:
            return f"it is lowered as k maxima, and k is {count}, expected a number up to {MOST_OF_TOPK}"
        if node.outputs and not node.outputs[0].dtype.startswith(("float", "bfloat")):
            return f"it is lowered as maxima of floats, and has {node.outputs[0].dtype}"
    if node.operator in POWERS and node.outputs and not node.outputs[0].dtype.startswith(("float", "bfloat")):
        return "its compiler has powers of floats only, and one by logarithms is not exact in whole numbers"
    if node.operator in POOLS_WITH_PLACES and argument(node, 5, "ceil_mode", False):
        return "its compiler gives the places of maxima a wrong shape where sizes are rounded up"
    return ""


RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes=DTYPES, special=_special, typed=TYPED)
