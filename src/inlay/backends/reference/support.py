"""What the reference takes: everything that torch captured. Imports no SDK."""

from __future__ import annotations

from inlay.graph import Program
from inlay.specs.capability import Capability, NodeSupport

NAME = "reference"
PACKAGES = ("torch",)


def supports(program: Program) -> Capability:
    """Every node, in a process that loads torch."""
    nodes = tuple(NodeSupport(node=node.name, supported=True) for node in program.nodes)
    return Capability(backend=NAME, nodes=nodes, needs_torch=True)
