"""What ExecuTorch takes, and the packages it needs. Imports no SDK.

XNNPACK takes what it knows (convolutions, matrix products, element-wise arithmetic in float32), its portable kernels the
rest, one operator at a time. A run holds Python's global lock from beginning to end, so a device process runs nothing
else beside it. Executing needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from inlay.backends.refusal import RANDOM, Rules
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Capability

NAME = "executorch"
PACKAGES = ("executorch",)
ENVIRONMENT = "executorch"
LOWERED_WITH = ("torchao",)  # in the cache key only: an artifact is loaded without it
NO_KERNEL = "ExecuTorch has no kernel for it"
REFUSED: dict[str, str] = {}
DTYPES: dict[str, str] = {}


def supports(program: Program) -> Capability:
    """Every node but those that the tables and rules refuse, at declared sizes, in a process that loads torch."""
    return Capability(backend=NAME, nodes=RULES.judge(program), dynamic=False, needs_torch=True)


def _special(node: Node, values: Mapping[str, Tensor]) -> str:
    """Reasons that lie in a node's arguments and sizes; found by trying, each against torch."""
    return ""


RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes=DTYPES, special=_special)
