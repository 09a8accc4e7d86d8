"""Load and run on the chip: an interpreter that keeps every value in the chip's memory, and buffers with its KV layout.

The chip keeps a past [row, head, token, dim] as [row][token][head][lane], dim filled up to a multiple of 16 lanes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from inlay.backends import Array, Buffer
from inlay.backends.buffer import region_of
from inlay.backends.ports import check_buffer, check_shape, check_sizes
from inlay.backends.weights import map_weights
from inlay.errors import DeviceError, InputError, UnsupportedError
from inlay.graph.capture import load_exported
from inlay.models import numpy_dtype
from inlay.specs.artifact import ArtifactManifest, WeightMap
from inlay_newchip.chip import Memory, Range
from inlay_newchip.lower import GRAPH_FILE
from inlay_newchip.support import NAME

DEFAULT_MEMORY, LANES = 1 << 30, 16


class ChipBuffer:
    """A Buffer (see the seam) at an address. `kv` ports have the chip's own layout."""

    def __init__(
        self, shape: tuple[int, ...], dtype: str, memory: Memory, *, kv: bool, held: Range | None = None, offset: int = 0
    ) -> None:
        self.shape, self.dtype, self._memory, self._kv, self._offset = shape, dtype, memory, kv, offset
        self._held = held or memory.take(size_of(shape, dtype, kv=kv))

    def stored(self) -> torch.Tensor:
        """The chip's view of the values, in the logical layout."""
        dtype, at = getattr(torch, self.dtype), self._held.address + self._offset
        if not self._kv:
            return self._memory.operand(at, dtype, self.shape)
        rows, heads, tokens, dim = self.shape
        return self._memory.operand(at, dtype, (rows, tokens, heads, -(-dim // LANES) * LANES))[..., :dim].transpose(1, 2)

    def write(self, array: Array, at: tuple[int, ...] = ()) -> None:
        staged = self._memory.take(array.nbytes)
        self._memory.copy_in(staged.address, array)
        held = self._memory.operand(staged.address, getattr(torch, self.dtype), array.shape)
        self.stored()[region_of(self.shape, array.shape, at)] = held

    def read(self, at: tuple[slice, ...] = ()) -> Array:
        part, memory = self.stored()[at], self._memory
        staged = memory.take(size := part.numel() * part.element_size())
        memory.operand(staged.address, part.dtype, tuple(part.shape)).copy_(part)
        return memory.copy_out(staged.address, size).view(numpy_dtype(self.dtype)).reshape(tuple(part.shape))

    def rows(self, first: int, count: int) -> ChipBuffer:
        if not 0 <= first <= first + count <= self.shape[0]:
            raise DeviceError(f"rows {first}..{first + count} of a buffer of {self.shape[0]}, expected them inside it")
        offset = self._offset + size_of((first, *self.shape[1:]), self.dtype, kv=self._kv)
        shape = (count, *self.shape[1:])
        return ChipBuffer(shape, self.dtype, self._memory, kv=self._kv, held=self._held, offset=offset)

    def place(self, source: Buffer, *, rows: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        assert isinstance(source, ChipBuffer)
        ours, theirs = self.stored(), source.stored()
        for entry, (row, start, count) in enumerate(zip(rows, starts, counts, strict=True)):
            if start + count > self.shape[2]:
                raise DeviceError(f"{count} tokens at {start} do not fit a past of {self.shape[2]}")
            ours[row, :, start : start + count] = theirs[entry, :, :count]


def size_of(shape: tuple[int, ...], dtype: str, *, kv: bool) -> int:
    return math.prod((*shape[:-1], -(-shape[-1] // LANES) * LANES) if kv else shape) * numpy_dtype(dtype).itemsize


class Interpreter(torch.fx.Interpreter):
    """Carries out one node after another; what a node gives is moved into the chip's memory before the next reads it."""

    memory: Memory

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        return torch.utils._pytree.tree_map_only(torch.Tensor, self._kept, result) if n.op == "call_function" else result

    def _kept(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() == 0:
            return tensor
        held = self.memory.take(tensor.numel() * tensor.element_size())
        moved = self.memory.operand(held.address, tensor.dtype, tuple(tensor.shape)).copy_(tensor)
        moved._range = held  # type: ignore[attr-defined]  # freed with the value
        return moved


class ChipExecutable:
    """See the seam; completion is asynchronous."""

    def __init__(self, graph: torch.fx.GraphModule, weights: list[Array], memory: Memory, manifest: ArtifactManifest) -> None:
        self.inputs, self.outputs, self._manifest = manifest.inputs, manifest.outputs, manifest
        self._ports, self._memory = (*manifest.inputs, *manifest.outputs), memory
        self._kv = range(0) if manifest.stage is None else range(manifest.stage.pasts, manifest.stage.inputs)
        self._interpreter = Interpreter(graph)
        self._interpreter.memory = memory
        self._queue, self._fence = ThreadPoolExecutor(1, "newchip"), Future[None]()
        self._weights = [ChipBuffer(array.shape, array.dtype.name, memory, kv=False) for array in weights]
        for buffer, array in zip(self._weights, weights, strict=True):
            buffer.write(array)
        self._bound: list[ChipBuffer | None] = [None] * len(self._ports)

    def allocate(self, port: int, shape: tuple[int, ...]) -> ChipBuffer:
        check_shape(self._ports[port], shape)
        return ChipBuffer(shape, self._ports[port].dtype, self._memory, kv=port in self._kv)

    def bind(self, port: int, buffer: Buffer) -> None:
        if not isinstance(buffer, ChipBuffer):
            raise DeviceError(f"{NAME} cannot bind a {type(buffer).__name__}, expected a buffer of its own")
        check_buffer(self._ports[port], buffer)
        self._bound[port] = buffer

    def start(self, sizes: Mapping[str, int]) -> None:
        held, known = self._manifest.buckets, dict(sizes) in self._manifest.points
        if held is not None:
            known = sizes["B"] in held.batches and sizes["T"] in held.widths and sizes["P"] in held.capacities
        if not known:
            raise UnsupportedError(f"{NAME} was not compiled for {dict(sizes)}, expected {held or self._manifest.points}")
        check_sizes(self._ports, self._bound, sizes)
        self._fence = self._queue.submit(self._compute)

    def done(self, *, wait: bool = False) -> bool:
        try:
            return (wait or self._fence.done()) and self._fence.result() is None
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise DeviceError(f"{NAME} failed: {error}") from error

    def run(self, sizes: Mapping[str, int]) -> None:
        self.start(sizes)
        self.done(wait=True)

    def close(self) -> None:
        self._queue.shutdown()
        self._weights, self._bound = [], [None] * len(self._ports)

    def _compute(self) -> None:
        count = len(self.inputs)
        given = [buffer.stored() for buffer in (*self._weights, *self._bound[:count]) if buffer is not None]
        with torch.no_grad():
            results = self._interpreter.run(*given)
        for buffer, result in zip(self._bound[count:], results, strict=True):
            if buffer is not None:
                buffer.stored().copy_(result)


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> ChipExecutable:
    """Copy the weights onto the chip. The option `memory` is the chip's size in bytes."""
    if set(options) - {"memory"} or not options.get("memory", "1").isdigit():
        raise InputError(f"{NAME} options are {dict(options)}, expected memory = a number of bytes")
    torch.set_num_threads(threads)
    arrays = list(map_weights(weights, names=manifest.weights).values())
    graph = load_exported(directory / GRAPH_FILE).graph_module
    return ChipExecutable(graph, arrays, Memory(int(options.get("memory", DEFAULT_MEMORY))), manifest)
