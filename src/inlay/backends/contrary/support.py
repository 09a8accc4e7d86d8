"""What the contrary device takes: everything, but in declared buckets only. Imports no SDK."""

from __future__ import annotations

from inlay.graph import Program
from inlay.specs.capability import Capability, NodeSupport

NAME = "contrary"
PACKAGES = ("torch",)


def supports(program: Program) -> Capability:
    """Every node, at static sizes, in a process that loads torch."""
    nodes = tuple(NodeSupport(node=node.name, supported=True) for node in program.nodes)
    return Capability(backend=NAME, nodes=nodes, dynamic=False, needs_torch=True)
