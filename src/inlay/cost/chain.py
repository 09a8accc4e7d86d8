"""The chain of blocks as the deciders see it: what crosses from block to block, and which runs of blocks are alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from inlay.errors import InputError
from inlay.graph import Block, Cut, Node, Piece, Program, block_flops, piece_of


@dataclass(frozen=True)
class Crossing:
    """A value made by one block and read by later ones; `sizes` are its bytes at each point."""

    name: str
    producer: int
    consumers: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Chain:
    """A program, its blocks in order, and the points (a size by symbol) of one pass."""

    program: Program
    blocks: tuple[Block, ...]
    points: tuple[dict[str, int], ...]

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """The nodes of the program by name."""
        return {node.name: node for node in self.program.nodes}

    @cached_property
    def flops(self) -> tuple[tuple[float, ...], ...]:
        """FLOPs of every block at every point."""
        return tuple(tuple(block_flops(self.program, block, point) for point in self.points) for block in self.blocks)

    def is_named(self, block: Block, pattern: str) -> bool:
        """Whether the block's name, or the module path of one of its own nodes, has a match of a pattern; cheap producers
        that are repeated in it do not count."""
        paths = (self.nodes[name].path for name in block.nodes)
        return any(re.search(pattern, path) for path in (block.name, *paths) if path)

    def share(self, first: int, end: int) -> float:
        """The share of a run of blocks in the FLOPs of one pass over all points."""
        whole = sum(map(sum, self.flops))
        return sum(map(sum, self.flops[first:end])) / whole if whole else 0.0

    @cached_property
    def producers(self) -> dict[str, tuple[int, int]]:
        """Which block makes a value, and at which of its output ports."""
        return {name: (block.index, port) for block in self.blocks for port, name in enumerate(block.outputs)}

    @cached_property
    def crossings(self) -> tuple[Crossing, ...]:
        """Every value that goes from block to block, in the order of its making.

        Raises InputError for blocks out of order and for an input of a block that nobody before it makes.
        """
        readers: dict[str, list[int]] = {}
        for position, block in enumerate(self.blocks):
            if block.index != position:
                raise InputError(
                    f"block {block.name!r} has index {block.index}, expected {position}",
                    hint="blocks are given in the order in which they run",
                )
            for name in block.inputs:
                made = self.producers.get(name)
                if made is not None and made[0] < block.index:
                    readers.setdefault(name, []).append(block.index)
                elif name not in self.program.inputs:
                    raise InputError(
                        f"block {block.name!r} reads {name!r}, which no block before it makes",
                        hint="blocks are given in the order in which they run",
                    )
        ordered = sorted(readers, key=lambda name: self.producers[name])
        return tuple(
            Crossing(
                name=name,
                producer=self.producers[name][0],
                consumers=tuple(readers[name]),
                sizes=tuple(self.value_bytes(name, point) for point in self.points),
            )
            for name in ordered
        )

    def value_bytes(self, name: str, sizes: Mapping[str, int]) -> int:
        """The size of a value or of a program input."""
        key = (name, tuple(sizes.items()))
        if key not in self._bytes:
            given = self.program.inputs.get(name)
            tensors = self.nodes[name].outputs if given is None else (given,)
            self._bytes[key] = sum(tensor.bytes(sizes) for tensor in tensors)
        return self._bytes[key]

    @cached_property
    def most_live(self) -> dict[tuple[int, int], int]:
        """What `memory` has found so far: bytes of activations that live at once in a run of blocks, at its worst point."""
        return {}

    @cached_property
    def _bytes(self) -> dict[tuple[str, tuple[tuple[str, int], ...]], int]:
        return {}

    def weight_bytes(self, first: int, end: int) -> int:
        """The weights of a run of blocks, each counted once."""
        names = {name for block in self.blocks[first:end] for name in block.weights}
        return sum(self._weights[name] for name in names)

    @cached_property
    def _weights(self) -> dict[str, int]:
        return {name: tensor.bytes({}) for name, tensor in self.program.weights.items()}

    def piece(self, first: int, end: int) -> Piece:
        """A run of blocks as one piece of code: its ports, nodes, weights, and the digest that equal runs share."""
        if (first, end) not in self._pieces:
            self._pieces[first, end] = piece_of(Cut(program=self.program, blocks=self.blocks), first, end)
        return self._pieces[first, end]

    @cached_property
    def _pieces(self) -> dict[tuple[int, int], Piece]:
        return {}

    def alike(self, first: int, end: int) -> tuple[tuple[int, int], ...]:
        """Every run of blocks with the digest of this one, itself included."""
        wanted = [block.digest for block in self.blocks[first:end]]
        width, digest = end - first, self.piece(first, end).digest
        starts = range(len(self.blocks) - width + 1)
        same = (start for start in starts if [block.digest for block in self.blocks[start : start + width]] == wanted)
        return tuple((start, start + width) for start in same if self.piece(start, start + width).digest == digest)

    @cached_property
    def equal_stretches(self) -> tuple[tuple[int, int], ...]:
        """The longest runs of two or more blocks that all have one digest."""
        found, first = [], 0
        for end in range(1, len(self.blocks) + 1):
            if end == len(self.blocks) or self.blocks[end].digest != self.blocks[first].digest:
                if end - first > 1:
                    found.append((first, end))
                first = end
        return tuple(found)
