"""Program: a torch-free summary of a captured graph, and its blocks.

`graph.capture`, `graph.extract` and `graph.summary` are the torch doors of this room.
"""

from __future__ import annotations

from inlay.graph.blocks import cut_into_blocks, layer_of
from inlay.graph.digest import is_number, structural_digest, value_table
from inlay.graph.flops import block_flops, flops_of
from inlay.graph.program import Block, Node, Program, State, Tensor
from inlay.graph.region import Cut, Piece, piece_of, weight_name
from inlay.graph.sizes import Size, shape_value, size_value, solve_sizes, symbols_of

__all__ = [
    "Block",
    "Cut",
    "Node",
    "Piece",
    "Program",
    "Size",
    "State",
    "Tensor",
    "block_flops",
    "cut_into_blocks",
    "flops_of",
    "is_number",
    "layer_of",
    "piece_of",
    "shape_value",
    "size_value",
    "solve_sizes",
    "structural_digest",
    "symbols_of",
    "value_table",
    "weight_name",
]
