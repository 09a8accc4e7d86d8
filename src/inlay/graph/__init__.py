"""Program: a torch-free summary of a captured graph. `graph.capture` is the torch door of this room."""

from __future__ import annotations

from inlay.graph.program import Node, Program, Tensor

__all__ = ["Node", "Program", "Tensor"]
