"""Run the captured program eagerly. This framework is torch itself, so its device process loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from inlay.backends.buffer import HostBuffer
from inlay.backends.ports import check_buffer, check_dynamic, check_shape, check_sizes
from inlay.backends.reference.support import NAME
from inlay.backends.seam import Buffer
from inlay.backends.tensors import tensor_of
from inlay.backends.weights import map_weights
from inlay.errors import DeviceError, InputError
from inlay.graph.capture import load_graph
from inlay.specs.artifact import ArtifactManifest, WeightMap

GRAPH_FILE = "graph.pt2"


class ReferenceExecutable:
    """A captured program with its weights."""

    def __init__(
        self, program: Callable[..., tuple[torch.Tensor, ...]], weights: list[torch.Tensor], *, manifest: ArtifactManifest
    ) -> None:
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._ranges = manifest.ranges
        self.report = {"precision": "float32", "threads": str(torch.get_num_threads())}
        self._ports = (*self.inputs, *self.outputs)
        self._program, self._weights = program, weights
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        check_shape(self._ports[port], shape)
        return HostBuffer.zeros(shape, self._ports[port].dtype)

    def bind(self, port: int, buffer: Buffer) -> None:
        if not isinstance(buffer, HostBuffer):
            raise DeviceError(f"{NAME} cannot bind a {type(buffer).__name__}, expected a buffer of its own")
        check_buffer(self._ports[port], buffer)
        self._bound[port] = buffer

    def run(self, sizes: Mapping[str, int]) -> None:
        check_dynamic(sizes, self._ranges)
        check_sizes(self._ports, self._bound, sizes)
        tensors = [buffer.handle(NAME, tensor_of) for buffer in self._bound if buffer is not None]
        count = len(self.inputs)
        try:
            with torch.no_grad():
                results = self._program(*self._weights, *tensors[:count])
        except (RuntimeError, IndexError) as error:
            raise DeviceError(f"{NAME} failed in a run of {dict(sizes)}: {error}") from error
        for target, result in zip(tensors[count:], results, strict=True):
            target.copy_(result)

    def close(self) -> None:
        self._weights = []
        self._bound = [None] * len(self._ports)


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> ReferenceExecutable:
    """Read the graph and view the mapped weights as tensors; see the seam. It has no options."""
    for key in options:
        raise InputError(f"{NAME} has no option {key!r}, expected none")
    torch.set_num_threads(threads)
    program = load_graph(directory / GRAPH_FILE)
    arrays = map_weights(weights, names=manifest.weights)
    return ReferenceExecutable(program, [tensor_of(array) for array in arrays.values()], manifest=manifest)
