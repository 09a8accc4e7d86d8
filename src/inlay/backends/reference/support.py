"""What the reference takes: everything that torch captured. Imports no SDK."""

from __future__ import annotations

from inlay.backends.refusal import Rules
from inlay.graph import Program
from inlay.specs.capability import Capability

NAME = "reference"
PACKAGES = ("torch",)
PRECISIONS = ("float32", "int8-weights")
RULES = Rules(backend=NAME, operators={}, dtypes={}, sized=True)


def supports(program: Program) -> Capability:
    """Every node, in a process that loads torch."""
    return Capability(backend=NAME, nodes=RULES.judge(program), needs_torch=True)
