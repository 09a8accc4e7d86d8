"""Load and run IREE's bytecode over mapped weights. Imports no torch: this is what a device process maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from inlay.backends.buffer import HostBuffer, aligned_zeros
from inlay.backends.iree.memory import DeviceMemory, HostMemory, Memory, is_aligned
from inlay.backends.iree.support import NAME
from inlay.backends.ports import check_buffer, check_dynamic, check_shape, check_sizes
from inlay.backends.seam import Array, Buffer
from inlay.backends.weights import map_weights, seeming_writable
from inlay.errors import ArtifactError, DeviceError, InputError, OutOfMemoryError, UnsupportedError
from inlay.specs.artifact import ArtifactManifest, WeightMap

CODE_FILE = "module.vmfb"
FUNCTION = "main"
DRIVERS = {"vulkan": "vulkan"}
"""By target. Without one the code is for this CPU."""
FAILURES = (RuntimeError, ValueError)


class IreeExecutable:
    """Loaded functions: one for any size, or one for each point. Results are copied out of the framework's own memory."""

    def __init__(
        self, runtime: Any, context: Any, functions: Sequence[Any], memory: Memory, *, manifest: ArtifactManifest
    ) -> None:  # fmt: skip
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self.report: dict[str, str] = {}
        self._manifest = manifest
        self._ports = (*self.inputs, *self.outputs)
        self._runtime, self._context, self._functions, self._memory = runtime, context, list(functions), memory
        self._function: Any = None
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
            check_dynamic(sizes, self._manifest.ranges)
            check_sizes(self._ports, self._bound, sizes)
            self._function = self._functions[_version(self._manifest.points, sizes)]
            self._checked = dict(sizes)
        try:
            if self._arguments is None or not self._memory.shares:
                self._arguments = self._arrange()
            for target, source in self._copied:
                target[...] = source
            results = self._runtime.VmVariantList(len(self.outputs))
            self._context.invoke(self._function, self._arguments, results)
            for index, buffer in enumerate(self._bound[len(self.inputs) :]):
                if buffer is not None:
                    self._read(results.get_as_object(index, self._runtime.HalBufferView), index, buffer)
        except FAILURES as error:
            raise failure(error, f"in a run of {dict(sizes)}") from error

    def close(self) -> None:
        self._arguments = self._context = self._function = None
        self._functions, self._weights, self._keep, self._copied = [], [], [], []
        self._bound = [None] * len(self._ports)

    def keep_weights(self, arrays: Mapping[str, Array]) -> None:
        """The weights as arguments of every run, over their mapped memory; one that lies at an odd address is copied."""
        for array in arrays.values():
            shared = array
            if not is_aligned(array):
                shared = aligned_zeros(array.shape, array.dtype.name)
                shared[...] = array
            self._weights.append(self._memory.argument(seeming_writable(shared)))
            if self._memory.shares:
                self._keep.append(shared)

    def _arrange(self) -> Any:
        """The arguments of a run. A view that begins inside of a buffer may lie where code must not read: it is copied."""
        self._copied = []
        arguments = self._runtime.VmVariantList(len(self._weights) + len(self.inputs))
        for weight in self._weights:
            arguments.push_ref(weight)
        for buffer in self._bound[: len(self.inputs)]:
            assert buffer is not None  # by check_sizes
            if not self._memory.shares:
                arguments.push_ref(self._memory.argument(buffer.array))
            elif is_aligned(buffer.array):
                arguments.push_ref(buffer.handle(NAME, self._memory.argument))
            else:
                copy = aligned_zeros(buffer.shape, buffer.dtype)
                self._copied.append((copy, buffer.array))
                arguments.push_ref(self._memory.argument(copy))
        return arguments

    def _read(self, result: Any, index: int, buffer: HostBuffer) -> None:
        if tuple(result.shape) != buffer.shape:
            name = self.outputs[index].name
            raise DeviceError(f"{NAME} gave {name!r} of shape {list(result.shape)}, expected {list(buffer.shape)}")
        self._memory.read(result, buffer.array)


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> IreeExecutable:
    """Map the code and bind mapped weights as arguments of every run; see the seam. It has no options."""
    for key in options:
        raise InputError(f"{NAME} has no option {key!r}, expected none")
    from iree import runtime

    device, driver = _device(manifest.target, threads)
    path = directory / CODE_FILE
    try:
        instance = runtime.VmInstance()
        code = runtime.VmModule.mmap(instance, str(path))
        context = runtime.VmContext(instance, modules=[runtime.create_hal_module(instance, device), code])
        functions = [code.lookup_function(f"{FUNCTION}{number or ''}") for number in range(max(1, len(manifest.points)))]
    except FAILURES as error:
        raise ArtifactError(f"artifact file {str(path)!r} cannot be loaded: {first_line(error)}") from error
    if None in functions:
        raise ArtifactError(f"artifact file {str(path)!r} lacks a function for one of {len(functions)} points")
    memory = DeviceMemory(runtime, device) if manifest.target else HostMemory(runtime, device)
    executable = IreeExecutable(runtime, context, functions, memory, manifest=manifest)
    executable.keep_weights(map_weights(weights, names=manifest.weights))
    executable.report = {"driver": driver, "precision": manifest.precision.compute, "threads": str(threads)}
    return executable


@cache
def _device(target: str, threads: int) -> tuple[Any, str]:
    """The device of this process: on the CPU one thread computes where it is called, several are workers that do not spin.

    Their number belongs to the process: the framework makes its workers once.
    """
    from iree import runtime

    if target:
        driver = DRIVERS[target]
        try:
            found = runtime.get_driver(driver).query_available_devices()
            return runtime.get_device(driver), f"{driver}: {found[0]['name']}"
        except (*FAILURES, IndexError) as error:
            raise DeviceError(
                f"{NAME} finds no device for target {target!r}: {first_line(error)}",
                hint="on Debian, mesa-vulkan-drivers holds one in software" if driver == "vulkan" else None,
            ) from error
    if threads == 1:
        return runtime.get_device("local-sync"), "local-sync"
    runtime.flags.parse_flags(f"--task_topology_group_count={threads}", "--task_worker_spin_us=0")
    return runtime.get_device("local-task"), "local-task"


def _version(points: Sequence[Mapping[str, int]], sizes: Mapping[str, int]) -> int:
    """Which function runs these sizes. Raises UnsupportedError for sizes that none was made for."""
    if not any(points):
        return 0
    if dict(sizes) not in points:
        raise UnsupportedError(f"{NAME} has no bucket for {dict(sizes)}, expected one of {list(points)}")
    return list(points).index(dict(sizes))


def failure(error: Exception, what: str) -> DeviceError:
    """What a failure of the framework is in our tree."""
    kind = OutOfMemoryError if "RESOURCE_EXHAUSTED" in str(error) else DeviceError
    return kind(f"{NAME} failed {what}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
