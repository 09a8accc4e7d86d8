"""Load and run IREE's bytecode over mapped weights. Imports no torch: this is what a device process maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from inlay.backends.buffer import ALIGNMENT, HostBuffer, aligned_zeros
from inlay.backends.iree.support import NAME
from inlay.backends.ports import check_buffer, check_dynamic, check_shape, check_sizes
from inlay.backends.seam import Array, Buffer
from inlay.backends.weights import map_weights, seeming_writable
from inlay.errors import ArtifactError, DeviceError, InputError, OutOfMemoryError
from inlay.specs.artifact import ArtifactManifest, WeightMap

CODE_FILE = "module.vmfb"
FUNCTION = "main"
ELEMENTS = {
    "float64": "FLOAT_64", "float32": "FLOAT_32", "float16": "FLOAT_16", "bfloat16": "BFLOAT_16",
    "int64": "SINT_64", "int32": "SINT_32", "int16": "SINT_16", "int8": "SINT_8", "uint8": "UINT_8", "bool": "BOOL_8",
}  # fmt: skip


class IreeExecutable:
    """One loaded function. Inputs are the framework's views of bound host memory; results are copied out of its own."""

    def __init__(self, runtime: Any, context: Any, function: Any, device: Any, *, manifest: ArtifactManifest) -> None:
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self.report: dict[str, str] = {}
        self._ranges = manifest.ranges
        self._ports = (*self.inputs, *self.outputs)
        self._runtime, self._context, self._function, self._device = runtime, context, function, device
        self._weights: list[Any] = []
        self._keep: list[Array] = []
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)
        self._copied: list[tuple[Array, Array]] = []
        self._arguments: Any = None
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
        self._bound[port] = buffer
        self._checked = None
        if port < len(self.inputs):
            self._arguments = None

    def run(self, sizes: Mapping[str, int]) -> None:
        if self._checked != sizes:
            check_dynamic(sizes, self._ranges)
            check_sizes(self._ports, self._bound, sizes)
            self._checked = dict(sizes)
        if self._arguments is None:
            self._arguments = self._arrange()
        for target, source in self._copied:
            target[...] = source
        results = self._runtime.VmVariantList(len(self.outputs))
        try:
            self._context.invoke(self._function, self._arguments, results)
            for index, buffer in enumerate(self._bound[len(self.inputs) :]):
                if buffer is not None:
                    buffer.array[...] = self._result(results, index, buffer)
        except RuntimeError as error:
            raise failure(error, f"in a run of {dict(sizes)}") from error

    def close(self) -> None:
        self._arguments = self._context = self._function = None
        self._weights, self._keep, self._copied = [], [], []
        self._bound = [None] * len(self._ports)

    def keep_weights(self, arrays: Mapping[str, Array]) -> None:
        """The weights as arguments of every run, over their mapped memory; one that lies at an odd address is copied."""
        for array in arrays.values():
            shared = array
            if not _is_aligned(array):
                shared = aligned_zeros(array.shape, array.dtype.name)
                shared[...] = array
            self._keep.append(shared)
            self._weights.append(self._view(seeming_writable(shared)))

    def _arrange(self) -> Any:
        """The arguments of a run. A view that begins inside of a buffer may lie where code must not read: it is copied."""
        self._copied = []
        arguments = self._runtime.VmVariantList(len(self._weights) + len(self.inputs))
        for view in self._weights:
            arguments.push_ref(view)
        for buffer in self._bound[: len(self.inputs)]:
            assert buffer is not None  # by check_sizes
            if _is_aligned(buffer.array):
                arguments.push_ref(buffer.handle(NAME, self._view))
            else:
                copy = aligned_zeros(buffer.shape, buffer.dtype)
                self._copied.append((copy, buffer.array))
                arguments.push_ref(self._view(copy))
        return arguments

    def _view(self, array: Array) -> Any:
        runtime = self._runtime
        memory = runtime.MemoryType.DEVICE_LOCAL | runtime.MemoryType.HOST_VISIBLE
        usage = runtime.BufferUsage.DEFAULT | runtime.BufferUsage.MAPPING
        held = self._device.allocator.import_host_allocation(array.reshape(-1).view(np.uint8), memory, usage)
        element = getattr(runtime.HalElementType, ELEMENTS[array.dtype.name])
        return runtime.HalBufferView(held, array.shape, element)

    def _result(self, results: Any, index: int, buffer: HostBuffer) -> Array:
        view = results.get_as_object(index, self._runtime.HalBufferView)
        if tuple(view.shape) != buffer.shape:
            name = self.outputs[index].name
            raise DeviceError(f"{NAME} gave {name!r} of shape {list(view.shape)}, expected {list(buffer.shape)}")
        count = math.prod(buffer.shape) * buffer.array.itemsize
        found: Array = view.map().asarray((count,), np.dtype(np.uint8))
        return found.view(buffer.array.dtype).reshape(buffer.shape)


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> IreeExecutable:
    """Map the code and bind mapped weights as arguments of every run; see the seam. It has no options."""
    for key in options:
        raise InputError(f"{NAME} has no option {key!r}, expected none")
    from iree import runtime

    device, driver = _device(threads)
    path = directory / CODE_FILE
    try:
        instance = runtime.VmInstance()
        code = runtime.VmModule.mmap(instance, str(path))
        hal = runtime.create_hal_module(instance, device)
        context = runtime.VmContext(instance, modules=[hal, code])
        function = code.lookup_function(FUNCTION)
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"artifact file {str(path)!r} cannot be loaded: {first_line(error)}") from error
    if function is None:
        raise ArtifactError(f"artifact file {str(path)!r} has no function {FUNCTION!r}")
    executable = IreeExecutable(runtime, context, function, device, manifest=manifest)
    executable.keep_weights(map_weights(weights, names=manifest.weights))
    executable.report = {"driver": driver, "precision": manifest.precision.compute, "threads": str(threads)}
    return executable


@cache
def _device(threads: int) -> tuple[Any, str]:
    """The device of this process: one thread computes where it is called, several are workers that do not spin.

    Their number belongs to the process: the framework makes its workers once.
    """
    from iree import runtime

    if threads == 1:
        return runtime.get_device("local-sync"), "local-sync"
    runtime.flags.parse_flags(f"--task_topology_group_count={threads}", "--task_worker_spin_us=0")
    return runtime.get_device("local-task"), "local-task"


def _is_aligned(array: Array) -> bool:
    return array.ctypes.data % ALIGNMENT == 0


def failure(error: RuntimeError, what: str) -> DeviceError:
    """What a failure of the framework is in our tree."""
    kind = OutOfMemoryError if "RESOURCE_EXHAUSTED" in str(error) else DeviceError
    return kind(f"{NAME} failed {what}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
