"""What the null backend takes: everything, since it computes nothing. Imports no SDK."""

from __future__ import annotations

from inlay.graph import Program
from inlay.specs.capability import Capability, NodeSupport

NAME = "null"
PACKAGES = ("inlay",)


def supports(program: Program) -> Capability:
    """Every node."""
    return Capability(backend=NAME, nodes=tuple(NodeSupport(node=node.name, supported=True) for node in program.nodes))
