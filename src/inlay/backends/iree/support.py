"""What IREE takes, the packages it needs, and the CPU that its code is for. Imports no SDK."""

from __future__ import annotations

from collections.abc import Mapping

from inlay.backends.processor import instructions
from inlay.backends.refusal import RANDOM, Rules
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Capability

NAME = "iree"
ENVIRONMENT = "iree"
PACKAGES = ("iree-base-runtime", "iree-base-compiler")
LOWERED_WITH = ("iree-base-compiler",)
REFUSED: dict[str, str] = {}
DTYPES = {
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
    return ""


RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes=DTYPES, special=_special)
