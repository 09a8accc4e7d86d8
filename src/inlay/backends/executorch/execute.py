"""Load and run ExecuTorch programs over mapped weights. Needs torch: its Python runtime takes and gives tensors."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from inlay.backends.buffer import HostBuffer
from inlay.backends.executorch.constants import HEAD_FILE, RECIPE_FILE, Recipe, write_data
from inlay.backends.executorch.support import NAME
from inlay.backends.ports import check_buffer, check_shape, check_sizes
from inlay.backends.seam import Buffer
from inlay.backends.tensors import tensor_of
from inlay.backends.weights import map_weights
from inlay.errors import ArtifactError, DeviceError, InputError, UnsupportedError
from inlay.specs.artifact import ArtifactManifest, ShapeBuckets, WeightMap

PROGRAM_FILE = "program.pte"


STAGE = "stage"
"""What the one method of a stage is called."""


def point_name(index: int) -> str:
    """What the method of a declared point is called; the first one's is that of all where there is one for all."""
    return f"point_{index}"


def largest_sizes(buckets: ShapeBuckets) -> dict[str, int]:
    """The most of each size of a stage; memory is reserved for them."""
    batch, width = max(buckets.batches), max(buckets.widths)
    return {"B": batch, "T": width, "P": max(buckets.capacities), "R": batch * width}


def runtime() -> Any:
    """ExecuTorch's runtime itself. Its public face imports the whole compiler first: 5 s and 130 MB for nothing."""
    import executorch.extension.pybindings._portable_lib as found

    return found


class ExecutorchExecutable:
    """One loaded program, a method for each declared point or one for all. Its results are copied into the bound buffers."""

    def __init__(self, module: Any, weights: Sequence[torch.Tensor], *, manifest: ArtifactManifest, recipe: Recipe) -> None:
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self.report = {
            "precision": "float32",
            "threads": str(runtime()._threadpool_get_thread_count()),
            "delegates": ", ".join(map(str, recipe.delegates)),
            "portable operators": ", ".join(map(str, recipe.portable)),
        }
        self._points, self._buckets = list(manifest.points), manifest.buckets
        self._methods = len(recipe.delegates)
        self._ports = (*self.inputs, *self.outputs)
        self._module: Any = module
        self._arguments: list[Any] = [*weights, *(None for _ in self.inputs)]
        self._targets: list[Any] = [None for _ in self.outputs]
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)
        self._checked: dict[str, int] | None = None
        self._method = ""

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
            self._check(sizes)
        try:
            results = self._module.run_method(self._method, self._arguments, False)
        except RuntimeError as error:
            raise DeviceError(f"{NAME} failed in a run of {dict(sizes)}: {_first_line(error)}") from error
        for target, result in zip(self._targets, results, strict=True):
            target.copy_(result)

    def _check(self, sizes: Mapping[str, int]) -> None:
        if self._buckets is not None:
            _check_buckets(self._buckets, sizes)
            method = STAGE
        elif dict(sizes) in self._points:
            method = point_name(self._points.index(dict(sizes)) if self._methods > 1 else 0)
        else:
            raise UnsupportedError(f"{NAME} has no method for sizes {dict(sizes)}, expected one of {self._points}")
        check_sizes(self._ports, self._bound, sizes)
        self._method, self._checked = method, dict(sizes)

    def close(self) -> None:
        self._module, self._arguments, self._targets = None, [], []
        self._bound = [None] * len(self._ports)


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> ExecutorchExecutable:
    """Write the constants of these weights for XNNPACK to pack, and load the program; see the seam. It has no options."""
    for key in options:
        raise InputError(f"{NAME} has no option {key!r}, expected none")
    arrays = map_weights(weights, names=manifest.weights)
    try:
        recipe = msgspec.json.decode((directory / RECIPE_FILE).read_bytes(), type=Recipe)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"artifact file {str(directory / RECIPE_FILE)!r} cannot be read: {error}") from error
    runtime()._unsafe_reset_threadpool(threads)
    path = directory / PROGRAM_FILE
    with tempfile.TemporaryDirectory(prefix="inlay-executorch-") as folder:
        data = Path(folder) / "constants.ptd"
        if recipe.size:
            with open(data, "wb") as file:
                write_data(file, directory / HEAD_FILE, recipe, arrays)
        try:
            module = runtime()._load_for_executorch(str(path), str(data) if recipe.size else None)
        except RuntimeError as error:
            raise ArtifactError(f"artifact file {str(path)!r} cannot be loaded: {_first_line(error)}") from error
    tensors = [tensor_of(arrays[name]) for name in recipe.inputs]
    return ExecutorchExecutable(module, tensors, manifest=manifest, recipe=recipe)


def _check_buckets(buckets: ShapeBuckets, sizes: Mapping[str, int]) -> None:
    """Raise UnsupportedError for a size outside the declared ones."""
    for symbol, allowed in (("B", buckets.batches), ("T", buckets.widths), ("P", buckets.capacities)):
        if symbol in sizes and sizes[symbol] not in allowed:
            raise UnsupportedError(f"{NAME} has no bucket for {symbol} = {sizes[symbol]}, expected one of {list(allowed)}")
    most = largest_sizes(buckets)["R"]
    if not 1 <= sizes.get("R", 1) <= most:
        raise UnsupportedError(f"{NAME} has no bucket for R = {sizes['R']}, expected 1 to {most}")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
