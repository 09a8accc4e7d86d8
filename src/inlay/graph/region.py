"""A Region's own outside: ports, weights and digest of blocks that follow each other, taken as one piece. Torch-free."""

from __future__ import annotations

import msgspec

from inlay.graph.digest import structural_digest
from inlay.graph.program import Block, Program


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A program with its chain of blocks: what partitions are made of."""

    program: Program
    blocks: tuple[Block, ...]


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks `first` to `end`, not included, as one piece of code. Ports are named by the values that pass them, in order;
    `weights` are the names of its weights in the order of its code; equal pieces have equal digests."""

    first: int
    end: int
    digest: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]


def piece_of(cut: Cut, first: int, end: int) -> Piece:
    """The piece of these blocks. Values that only its own blocks read do not leave it; producers are repeated once."""
    program, blocks = cut.program, cut.blocks[first:end]
    made = {name for block in blocks for name in block.outputs}
    others = [*cut.blocks[:first], *cut.blocks[end:]]
    wanted = {name for block in others for name in block.inputs} | set(program.outputs)
    wanted |= {state.output for state in program.states}
    repeated = dict.fromkeys(name for block in blocks for name in block.replicated)
    nodes = (*repeated, *(name for block in blocks for name in block.nodes))
    inputs = tuple(dict.fromkeys(name for block in blocks for name in block.inputs if name not in made))
    outputs = tuple(name for block in blocks for name in block.outputs if name in wanted)
    weights = tuple(dict.fromkeys(name for block in blocks for name in block.weights))
    if len(blocks) == 1:
        digest = blocks[0].digest
    else:
        by_target = {target: node for node, target in program.weight_nodes.items()}
        digest = structural_digest(
            program, nodes=nodes, inputs=inputs, weights=[by_target[name] for name in weights], outputs=outputs
        )
    return Piece(first=first, end=end, digest=digest, nodes=nodes, inputs=inputs, outputs=outputs, weights=weights)


def weight_name(index: int) -> str:
    """What the code of a piece calls its weight of this number."""
    return f"weight.{index}"
