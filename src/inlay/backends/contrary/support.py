"""What the contrary device takes: everything, but in declared buckets only. Imports no SDK."""

from __future__ import annotations

from inlay.backends.refusal import Rules
from inlay.graph import Program
from inlay.specs.capability import Capability

NAME = "contrary"
PACKAGES = ("torch",)
PRECISIONS = ("float32", "int8-weights")
RULES = Rules(backend=NAME, operators={}, dtypes={}, sized=True)


def supports(program: Program) -> Capability:
    """Every node, at static sizes, in a process that loads torch."""
    return Capability(backend=NAME, nodes=RULES.judge(program), dynamic=False, needs_torch=True)
