"""Load and run a shared object that Inductor made. Needs torch's runtime; its compiler is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from inlay.backends.buffer import HostBuffer
from inlay.backends.inductor.conditions import Condition, check_conditions
from inlay.backends.inductor.support import NAME
from inlay.backends.ports import check_buffer, check_dynamic, check_shape, check_sizes
from inlay.backends.seam import Buffer
from inlay.backends.tensors import tensor_of
from inlay.backends.weights import map_weights
from inlay.errors import ArtifactError, DeviceError, InputError
from inlay.specs.artifact import ArtifactManifest, WeightMap

CODE_FILE = "code.so"
CONDITIONS_FILE = "conditions.json"


class InductorExecutable:
    """One loaded shared object. Its results are copied into the bound buffers: it allocates them itself."""

    def __init__(
        self, runner: Any, weights: list[torch.Tensor], conditions: Sequence[Condition], *, manifest: ArtifactManifest
    ) -> None:
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self.report = {"precision": "float32", "threads": str(torch.get_num_threads())}
        self._ports = (*self.inputs, *self.outputs)
        self._ranges, self._conditions = manifest.ranges, conditions
        self._runner: Any = runner
        self._arguments: list[Any] = [*weights, *(None for _ in self.inputs)]
        self._targets: list[Any] = [None for _ in self.outputs]
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)
        self._checked: dict[str, int] | None = None

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        check_shape(self._ports[port], shape)
        return HostBuffer.zeros(shape, self._ports[port].dtype)

    def bind(self, port: int, buffer: Buffer) -> None:
        if self._bound[port] is buffer:
            return
        if not isinstance(buffer, HostBuffer):
            raise DeviceError(f"{NAME} cannot bind a {type(buffer).__name__}, expected a buffer of its own")
        check_buffer(self._ports[port], buffer)
        tensor, count = buffer.handle(NAME, tensor_of), len(self.inputs)
        if port < count:
            self._arguments[port - count] = tensor
        else:
            self._targets[port - count] = tensor
        self._bound[port] = buffer
        self._checked = None

    def run(self, sizes: Mapping[str, int]) -> None:
        if self._checked != sizes:
            check_dynamic(sizes, self._ranges)
            check_sizes(self._ports, self._bound, sizes)
            check_conditions(self._conditions, sizes)
            self._checked = dict(sizes)
        try:
            results = self._runner.run(self._arguments)
        except RuntimeError as error:
            raise DeviceError(f"{NAME} failed in a run of {dict(sizes)}: {_first_line(error)}") from error
        for target, result in zip(self._targets, results, strict=True):
            target.copy_(result)

    def close(self) -> None:
        self._runner, self._arguments, self._targets = None, [], []
        self._bound = [None] * len(self._ports)


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> InductorExecutable:
    """Map the weights and load the code; see the seam. It has no options."""
    for key in options:
        raise InputError(f"{NAME} has no option {key!r}, expected none")
    torch.set_num_threads(threads)
    tensors = [tensor_of(array) for array in map_weights(weights, names=manifest.weights).values()]
    path = directory / CODE_FILE
    try:
        conditions = msgspec.json.decode((directory / CONDITIONS_FILE).read_bytes(), type=list[Condition])
        # The package loader of torch._inductor does the same, after importing the compiler: 2 s and 80 MB.
        runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    except (RuntimeError, OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"artifact file {str(path)!r} cannot be loaded: {_first_line(error)}") from error
    return InductorExecutable(runner, tensors, conditions, manifest=manifest)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
