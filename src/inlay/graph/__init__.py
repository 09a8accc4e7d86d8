"""Program: a torch-free summary of a captured graph. `graph.capture` and `graph.extract` are the torch doors of this room."""

from __future__ import annotations

from inlay.graph.program import Node, Program, Tensor
from inlay.graph.sizes import Size, shape_value, size_value, solve_sizes, symbols_of

__all__ = ["Node", "Program", "Size", "Tensor", "shape_value", "size_value", "solve_sizes", "symbols_of"]
