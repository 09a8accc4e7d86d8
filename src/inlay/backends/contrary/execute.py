"""The contrary device: static buckets, its own memory, completion on its own thread. Computes with torch inside."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from inlay.backends.arena import ContraryBuffer, DeviceMemory, Lease, device_memory, physical_shape
from inlay.backends.contrary.support import NAME
from inlay.backends.ports import check_buffer, check_shape, check_sizes
from inlay.backends.seam import Buffer
from inlay.backends.tensors import array_of, tensor_of
from inlay.backends.weights import map_weights
from inlay.errors import ArtifactError, DeviceError, InlayError, InputError, UnsupportedError
from inlay.graph.capture import load_graph
from inlay.models import numpy_dtype
from inlay.specs.artifact import ArtifactManifest, ShapeBuckets, WeightMap

GRAPH_FILE = "graph.pt2"
OPTIONS = ("memory",)
Function = Callable[..., tuple[torch.Tensor, ...]]


class ContraryExecutable:
    """Runs on a thread of its own; `run` is `start` and then waiting. R must be B (a row each) or B * T (all of them)."""

    def __init__(
        self, function: Function, weights: list[torch.Tensor], memory: DeviceMemory, *, manifest: ArtifactManifest
    ) -> None:  # fmt: skip
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self.memory = memory
        self.report = {"precision": "float32", "kv": manifest.precision.kv}
        self._ports = (*self.inputs, *self.outputs)
        stage = manifest.stage
        self._pasts = range(0) if stage is None else range(stage.pasts, stage.inputs)
        self._fresh = range(0) if stage is None else range(stage.new_key(0), len(self._ports))
        self._kv = numpy_dtype(manifest.precision.kv)
        self._manifest = manifest
        self._function, self._weights = function, weights
        self._lease: Lease | None = memory.take(sum(weight.numel() * weight.element_size() for weight in weights))
        self._bound: list[ContraryBuffer | None] = [None] * len(self._ports)
        self._failure: BaseException | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._work: queue.SimpleQueue[dict[str, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="contrary", daemon=True)
        self._thread.start()

    def allocate(self, port: int, shape: tuple[int, ...]) -> ContraryBuffer:
        check_shape(self._ports[port], shape)
        dtype, blocked = self._ports[port].dtype, port in self._pasts
        stored = self._kv if blocked or port in self._fresh else numpy_dtype(dtype)
        lease = self.memory.take(math.prod(physical_shape(shape, blocked=blocked)) * stored.itemsize)
        return ContraryBuffer(shape, dtype, blocked=blocked, stored=stored, lease=lease)

    def bind(self, port: int, buffer: Buffer) -> None:
        self._must_be_idle()
        if not isinstance(buffer, ContraryBuffer):
            raise DeviceError(f"{NAME} cannot bind a {type(buffer).__name__}, expected a buffer of its own")
        check_buffer(self._ports[port], buffer)
        self._bound[port] = buffer

    def start(self, sizes: Mapping[str, int]) -> None:
        self._must_be_idle()
        _check_declared(self._manifest, sizes)
        check_sizes(self._ports, self._bound, sizes)
        self._failure = None
        self._idle.clear()
        self._work.put(dict(sizes))

    def done(self) -> bool:
        if not self._idle.is_set():
            return False
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return True

    def run(self, sizes: Mapping[str, int]) -> None:
        self.start(sizes)
        self._idle.wait()
        self.done()

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()
        self._weights, self._lease = [], None
        self._bound = [None] * len(self._ports)

    def _must_be_idle(self) -> None:
        if not self._idle.is_set():
            raise DeviceError(f"{NAME} is still running", hint="wait until done() before binding or starting again")

    def _serve(self) -> None:
        while (sizes := self._work.get()) is not None:
            try:
                self._compute()
            except InlayError as error:
                self._failure = error
            except Exception as error:  # noqa: BLE001  # process edge: the device's own thread reports through done()
                self._failure = DeviceError(f"{NAME} failed in a run of {sizes}: {error}")
            finally:
                self._idle.set()

    def _compute(self) -> None:
        count = len(self.inputs)
        given = [tensor_of(buffer.read()) for buffer in self._bound[:count] if buffer is not None]
        with torch.no_grad():
            results = self._function(*self._weights, *given)
        for buffer, result in zip(self._bound[count:], results, strict=True):
            if buffer is not None:
                buffer.write(array_of(result))


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> ContraryExecutable:
    """Copy the weights into the device; see the seam. The option `memory` limits the device to that many bytes."""
    for key in options:
        if key not in OPTIONS:
            raise InputError(f"{NAME} has no option {key!r}, expected one of: {', '.join(OPTIONS)}")
    limit = options.get("memory")
    if limit is not None and not limit.isdigit():
        raise InputError(f"{NAME} option memory = {limit!r}, expected a number of bytes")
    if manifest.buckets is None and not manifest.points:
        raise ArtifactError(f"artifact {str(directory)!r} has no buckets and no points, one of which {NAME} needs")
    torch.set_num_threads(threads)
    function = load_graph(directory / GRAPH_FILE)
    copies = [tensor_of(array).clone() for array in map_weights(weights, names=manifest.weights).values()]
    memory = device_memory(None if limit is None else int(limit))
    return ContraryExecutable(function, copies, memory, manifest=manifest)


def _check_declared(manifest: ArtifactManifest, sizes: Mapping[str, int]) -> None:
    """Raise UnsupportedError for sizes outside the declared ones."""
    if manifest.buckets is not None:
        _check_buckets(manifest.buckets, sizes)
    elif dict(sizes) not in manifest.points:
        raise UnsupportedError(f"{NAME} has no bucket for {dict(sizes)}, expected one of {list(manifest.points)}")


def _check_buckets(buckets: ShapeBuckets, sizes: Mapping[str, int]) -> None:
    """Raise UnsupportedError for a size outside the declared ones."""
    for symbol, allowed in (("B", buckets.batches), ("T", buckets.widths), ("P", buckets.capacities)):
        if sizes[symbol] not in allowed:
            raise UnsupportedError(f"{NAME} has no bucket for {symbol} = {sizes[symbol]}, expected one of {list(allowed)}")
    batch, width = sizes["B"], sizes["T"]
    if sizes.get("R", batch) not in (batch, batch * width):
        raise UnsupportedError(f"{NAME} gives logits for R = {batch} or {batch * width} rows here, got {sizes['R']}")
