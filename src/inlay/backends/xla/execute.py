"""Compile StableHLO for this machine at load and run it. Imports jax and numpy, no torch: this is what a device process maps.

Inputs are read in place where a buffer lies at a multiple of 64 bytes, as whole buffers do and some views of rows do not;
the others are copied at each run. Results are XLA's own memory and are copied into the bound buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from inlay.backends.buffer import ALIGNMENT, HostBuffer
from inlay.backends.ports import check_buffer, check_shape, check_sizes
from inlay.backends.processor import instructions
from inlay.backends.seam import Array, Buffer
from inlay.backends.weights import map_weights
from inlay.backends.xla.compiled import Compiled, compile_code, kept_beside, limit_threads
from inlay.backends.xla.points import Point, read_points
from inlay.backends.xla.support import NAME, PLATFORMS, import_jax
from inlay.errors import ArtifactError, DeviceError, InputError, UnsupportedError
from inlay.specs.artifact import ArtifactManifest, WeightMap

OPTIONS = ("platform",)
Key = tuple[tuple[str, int], ...]


class XlaExecutable:
    """One compiled function for each declared set of sizes, over the same weights. `report` says where and how it runs."""

    def __init__(
        self, jax: Any, device: Any, functions: Mapping[Key, Compiled], weights: list[Any], *, manifest: ArtifactManifest
    ) -> None:  # fmt: skip
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self.report = {"precision": "float32", "platform": device.platform, "device": str(device)}
        self._put: Callable[[Array], Any] = lambda array: jax.device_put(array, device)
        self._in_place = device.platform == "cpu"
        self._failure: type[Exception] = jax.errors.JaxRuntimeError
        self._ports = (*self.inputs, *self.outputs)
        self._functions, self._weights = dict(functions), weights
        self._symbols = [name for name, _ in next(iter(self._functions))]
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)
        self._checked: dict[str, int] | None = None
        self._function: Compiled | None = None

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

    def run(self, sizes: Mapping[str, int]) -> None:
        if self._checked != sizes or self._function is None:
            self._function = self._find(sizes)
            check_sizes(self._ports, self._bound, sizes)
            self._checked = dict(sizes)
        bound = [buffer for buffer in self._bound if buffer is not None]
        given = [self._value(buffer) for buffer in bound[: len(self.inputs)]]
        try:
            results = [np.asarray(item) for item in self._function(*self._weights, *given)]  # waits until it is there
        except self._failure as error:
            raise DeviceError(f"{NAME} failed in a run of {dict(sizes)}: {_first_line(error)}") from error
        for buffer, result in zip(bound[len(self.inputs) :], results, strict=True):
            buffer.array[...] = result

    def close(self) -> None:
        self._functions, self._function, self._weights = {}, None, []
        self._bound = [None] * len(self._ports)

    def _find(self, sizes: Mapping[str, int]) -> Compiled:
        """The function for these sizes. Raises UnsupportedError that lists what there is."""
        wanted = tuple((name, sizes[name]) for name in self._symbols if name in sizes)
        found = self._functions.get(wanted)
        if found is None:
            for name, size in wanted:
                known = sorted({dict(key)[name] for key in self._functions})
                if size not in known:
                    raise UnsupportedError(f"{NAME} has no bucket for {name} = {size}, expected one of {known}")
            raise UnsupportedError(
                f"{NAME} has no bucket for {dict(sizes)}, expected one of {[dict(key) for key in self._functions]}"
            )
        return found

    def _value(self, buffer: HostBuffer) -> Any:
        """JAX's array over the buffer's memory, made once; a copy where that cannot be."""
        if self._in_place and buffer.array.ctypes.data % ALIGNMENT == 0:
            return buffer.handle(NAME, self._over)
        return self._put(buffer.array)

    def _over(self, array: Array) -> Any:
        """An array over this very memory. Raises DeviceError where JAX took a copy, which later writes would not reach."""
        value = self._put(array)
        if array.size and value.unsafe_buffer_pointer() != array.ctypes.data:
            raise DeviceError(f"{NAME} copied a buffer of shape {list(array.shape)}, expected to read it in place")
        return value


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> XlaExecutable:
    """Compile every point and place the weights on the device once; see the seam.

    The option `platform` is cpu (the default), cuda or tpu. XLA has one pool of threads in a process: it takes as many as
    `threads` says at the first load, and no more than the process's cores.
    """
    for key in options:
        if key not in OPTIONS:
            raise InputError(f"{NAME} has no option {key!r}, expected one of: {', '.join(OPTIONS)}")
    platform = options.get("platform", "cpu")
    if platform not in PLATFORMS:
        raise InputError(f"{NAME} option platform = {platform!r}, expected one of: {', '.join(PLATFORMS)}")
    points = read_points(directory)
    limit_threads(threads)
    jax = import_jax(platform=platform)
    device = _device(jax, platform)
    values = [jax.device_put(array, device) for array in map_weights(weights, names=manifest.weights).values()]
    kept = platform == "cpu" and points.instructions == instructions()
    with kept_beside(jax, directory, writes=False) if kept else nullcontext():
        functions = {_key(point): _function(jax, directory, point, manifest, device) for point in points.points}
    return XlaExecutable(jax, device, functions, values, manifest=manifest)


def _device(jax: Any, platform: str) -> Any:
    """The first device of a platform. Raises UnsupportedError with the reason why there is none."""
    try:
        return jax.devices(platform)[0]
    except RuntimeError as error:
        raise UnsupportedError(
            f"{NAME} finds no device of platform {platform!r}: {_first_line(error)}",
            hint="leave the option out, or install a jaxlib for that platform where such a device is",
        ) from error


def _key(point: Point) -> Key:
    return tuple(sorted(point.sizes.items()))


def _function(jax: Any, directory: Path, point: Point, manifest: ArtifactManifest, device: Any) -> Compiled:
    """The code of one point, compiled, or to be compiled when it is first run. Raises ArtifactError where its ports are not
    those of the manifest."""
    path = directory / point.file
    try:
        code = jax.export.deserialize(path.read_bytes())
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"artifact file {str(path)!r} cannot be read: {_first_line(error)}", hint="lower it again"
        ) from error
    found = [item.dtype.name for item in (*code.in_avals[len(manifest.weights) :], *code.out_avals)]
    wanted = [port.dtype for port in (*manifest.inputs, *manifest.outputs)]
    if found != wanted:
        raise ArtifactError(f"{point.file} has ports of types {found}, expected {wanted}", hint="lower it again")
    return compile_code(jax, code, device) if point.ahead else _Later(jax, code, device)


class _Later:
    """Code that is compiled when it is first called."""

    def __init__(self, jax: Any, code: Any, device: Any) -> None:
        self._make: Callable[[], Compiled] | None = lambda: compile_code(jax, code, device)
        self._made: Compiled | None = None

    def __call__(self, *arrays: Any) -> Sequence[Any]:
        if self._made is None:
            assert self._make is not None
            self._made, self._make = self._make(), None
        return self._made(*arrays)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
