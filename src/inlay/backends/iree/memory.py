"""How arrays of the host become arguments of IREE's functions, and results arrays: shared, or copied to a device and back.

Called by `execute`. Imports no SDK by itself: the runtime is handed in.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from inlay.backends.buffer import ALIGNMENT
from inlay.backends.seam import Array

ELEMENTS = {
    "float64": "FLOAT_64", "float32": "FLOAT_32", "float16": "FLOAT_16", "bfloat16": "BFLOAT_16",
    "int64": "SINT_64", "int32": "SINT_32", "int16": "SINT_16", "int8": "SINT_8", "uint8": "UINT_8", "bool": "BOOL_8",
}  # fmt: skip
WAIT_SECONDS = 600


class Memory(Protocol):
    """What `execute` needs of either kind. `shares`: what is written to an array later is seen by its argument."""

    shares: bool

    def argument(self, array: Array) -> Any:
        """A contiguous array as an argument."""

    def read(self, result: Any, target: Array) -> None:
        """Copy a result out."""


class HostMemory:
    """Code that runs on the CPU reads the arrays where they are. The caller keeps them alive and aligned."""

    shares = True

    def __init__(self, runtime: Any, device: Any) -> None:
        self._runtime, self._allocator = runtime, device.allocator
        self._kind = runtime.MemoryType.DEVICE_LOCAL | runtime.MemoryType.HOST_VISIBLE
        self._usage = runtime.BufferUsage.DEFAULT | runtime.BufferUsage.MAPPING

    def argument(self, array: Array) -> Any:
        held = self._allocator.import_host_allocation(array.reshape(-1).view(np.uint8), self._kind, self._usage)
        return self._runtime.HalBufferView(held, array.shape, element_of(self._runtime, array))

    def read(self, result: Any, target: Array) -> None:
        target[...] = as_array(result.map(), target)


class DeviceMemory:
    """A device with memory of its own. Results come back through memory that both see: mapping a result is not allowed."""

    shares = False

    def __init__(self, runtime: Any, device: Any) -> None:
        self._runtime, self._device, self._allocator = runtime, device, device.allocator

    def argument(self, array: Array) -> Any:
        runtime = self._runtime
        return self._allocator.allocate_buffer_copy(
            runtime.MemoryType.DEVICE_LOCAL,
            runtime.BufferUsage.DEFAULT,
            self._device,
            np.ascontiguousarray(array),
            element_of(runtime, array),
        )

    def read(self, result: Any, target: Array) -> None:
        runtime = self._runtime
        between = self._allocator.allocate_buffer(
            runtime.MemoryType.HOST_LOCAL | runtime.MemoryType.DEVICE_VISIBLE,
            runtime.BufferUsage.TRANSFER | runtime.BufferUsage.MAPPING,
            result.byte_length,
        )
        copied = runtime.HalFence.create_at(self._device.create_semaphore(0), 1)
        self._device.queue_copy(result.get_buffer(), between, runtime.HalFence(0), copied)
        copied.wait()
        target[...] = as_array(between.map(), target)


def element_of(runtime: Any, array: Array) -> Any:
    """The framework's name for an array's dtype."""
    return getattr(runtime.HalElementType, ELEMENTS[array.dtype.name])


def as_array(mapped: Any, like: Array) -> Array:
    """Mapped memory as an array of that dtype and shape, of dtypes that the framework does not know too."""
    found: Array = mapped.asarray((math.prod(like.shape) * like.itemsize,), np.dtype(np.uint8))
    return found.view(like.dtype).reshape(like.shape)


def is_aligned(array: Array) -> bool:
    """Whether an array begins where code for the CPU takes every argument to begin."""
    return array.ctypes.data % ALIGNMENT == 0
