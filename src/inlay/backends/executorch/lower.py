"""Lower a captured program to ExecuTorch's format, for declared sizes. A torch door: runs in a compile process only."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.export import Dim

from inlay.backends.executorch.constants import HEAD_FILE, RECIPE_FILE, Filling, Recipe, is_telling, known_again
from inlay.backends.executorch.execute import PROGRAM_FILE, STAGE, largest_sizes, point_name, runtime
from inlay.backends.executorch.packing import TAG, Packing, pack
from inlay.backends.executorch.support import ENVIRONMENT, NAME, PACKAGES, RULES
from inlay.backends.manifest import describe, need_precision
from inlay.errors import UnsupportedError
from inlay.graph import shape_value
from inlay.graph.attention import guard_masked_rows
from inlay.graph.capture import lifted_weights, without_weights
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

DELEGATE = "executorch_call_delegate"
log = logging.getLogger("inlay.backends")


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write program.pte with a method for each point, and how to make the file of its constants; see the seam."""
    need_precision(NAME, request.precision)
    RULES.refuse(summarize(exported, NAME), interface)
    methods = _methods(interface, request)
    bare, names = without_weights(guard_masked_rows(exported))
    packing = pack(bare, names)
    held = lifted_weights(exported)
    leading = [held[name] for name in packing.inputs]
    try:
        with _quiet():
            made = _convert(packing, leading, methods)
            program, data = bytes(made.buffer), made._tensor_data or {}
            _try(program, data, leading, methods)
    except Exception as error:  # whatever the converter or its runtime raises: this program does not lower here
        raise UnsupportedError(f"{NAME} cannot lower the program: {_reason(error)}") from error
    recipe = _recipe(packing, made, directory)
    (directory / PROGRAM_FILE).write_bytes(program)
    (directory / RECIPE_FILE).write_bytes(msgspec.json.encode(recipe))
    log.info("%s: %s delegates, %s operators left to portable kernels", NAME, recipe.delegates, recipe.portable)
    return describe(
        directory,
        backend=NAME,
        packages=PACKAGES,
        environment=ENVIRONMENT,
        interface=interface,
        request=request,
        weights=names,
    )


@dataclass(frozen=True)
class Method:
    """A method to lower: example inputs without weights, and which of their sizes are free, with least and most."""

    name: str
    given: Sequence[torch.Tensor]
    free: Sequence[Mapping[int, tuple[int, int]]] | None = None


def _methods(interface: Interface, request: LowerRequest) -> list[Method]:
    """One for each point; for a stage, which has far too many sizes for that, one with free sizes up to the largest."""
    if request.buckets is not None:
        largest = largest_sizes(request.buckets)
        given = _zeros(interface, {name: max(2, size) for name, size in largest.items()})
        free = [
            {axis: (1, max(2, largest[size])) for axis, size in enumerate(port.shape) if isinstance(size, str)}
            for port in interface.inputs
        ]
        return [Method(STAGE, given, free)]
    if not request.points:
        raise UnsupportedError(f"{NAME} runs declared sizes only", hint="give buckets for a stage, points for another program")
    return [Method(point_name(index), _zeros(interface, point)) for index, point in enumerate(request.points)]


def _convert(packing: Packing, leading: Sequence[Any], methods: Sequence[Method]) -> Any:
    from executorch.backends.transforms.remove_clone_ops import RemoveCloneOpsTransform
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    programs = {method.name: _exported(packing, leading, method) for method in methods}
    edge = to_edge_transform_and_lower(
        programs,
        # Copies that decomposing leaves go first: XNNPACK's own removal of them leaves a delegate with one output twice.
        transform_passes=[RemoveCloneOpsTransform(preserve_input_output_copies=True)],
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    packing.counted = {name: _count(edge.exported_program(name)) for name in programs}
    return edge.to_executorch(
        ExecutorchBackendConfig(
            external_constants=lambda node: TAG if "constant_" in node.name else None,
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
        )
    )


def _exported(packing: Packing, leading: Sequence[Any], method: Method) -> Any:
    """The module traced again: ExecuTorch takes no program that was cut out of another."""
    shapes: Any = None
    if method.free is not None:
        free = [{axis: Dim.AUTO(min=low, max=high) for axis, (low, high) in axes.items()} for axes in method.free]
        shapes = (*(None for _ in leading), *free)
    with torch.no_grad():
        return torch.export.export(
            packing.module,
            (*leading, *method.given),
            dynamic_shapes=shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _zeros(interface: Interface, point: Mapping[str, int]) -> list[Any]:
    return [torch.zeros(shape_value(port.shape, point), dtype=getattr(torch, port.dtype)) for port in interface.inputs]


def _count(exported: Any) -> tuple[int, int]:
    """Delegates, and operators left to the portable kernels."""
    found = Counter(
        "delegate" if DELEGATE in str(node.target) else "portable"
        for node in exported.graph.nodes
        if node.op == "call_function" and "getitem" not in str(node.target)
    )
    return found["delegate"], found["portable"]


def _try(program: bytes, data: Mapping[str, Any], leading: Sequence[Any], methods: Sequence[Method]) -> None:
    """Load and run each method once, so that what the runtime has no kernel for is told here."""
    constants = bytes(data[TAG]) if TAG in data else None  # the runtime reads these bytes without holding them
    loaded = runtime()._load_for_executorch_from_buffer(program, constants)
    for method in methods:
        loaded.run_method(method.name, [*leading, *method.given], False)


def _recipe(packing: Packing, made: Any, directory: Path) -> Recipe:
    """Where the numbers of the constants went. Raises UnsupportedError where one was computed with while lowering."""
    delegates, portable = zip(*packing.counted.values(), strict=True)
    data = bytes((made._tensor_data or {}).get(TAG, b""))
    starts, counts = np.array(packing.starts, np.int64), np.array(packing.counts, np.int64)
    fillings = []
    head = 0
    for at, size in _segments(data) if data else ():
        head = at if head == 0 else min(head, at)
        found = known_again(np.frombuffer(data, np.int32, size // 4, at), starts, counts)
        if found is None:
            raise UnsupportedError(f"{NAME} computed with a weight while lowering, expected it to be only moved")
        source, start, shape, strides = found
        fillings.append(Filling(at=at, source=source, start=start, shape=shape, strides=strides))
    _look_for_leaks(made, int(counts.sum()))
    (directory / HEAD_FILE).write_bytes(data[:head])
    return Recipe(
        size=len(data),
        sources=tuple(packing.sources),
        fillings=tuple(fillings),
        inputs=packing.inputs,
        delegates=tuple(delegates),
        portable=tuple(portable),
    )


def _segments(data: bytes) -> list[tuple[int, int]]:
    """Offset and size of each tensor of the data file."""
    from executorch.extension.flat_tensor.serialize import serialize

    header = serialize.FlatTensorHeader.from_bytes(data[8:])
    described = serialize._deserialize_to_flat_tensor(data[: header.flatbuffer_offset + header.flatbuffer_size])
    return [(header.segment_base_offset + item.offset, item.size) for item in described.segments]


def _look_for_leaks(made: Any, total: int) -> None:
    """Raise UnsupportedError where telling numbers, or what was computed of them, got into the code itself for good."""
    named = made._named_data
    held = [bytes(named.buffers[entry.buffer_index]) for entry in named.pte_data.values()] if named else []
    held += [bytes(item.storage) for item in made._emitter_output.program.constant_buffer]
    for item in held:
        if total and is_telling(np.frombuffer(item, np.float32, len(item) // 4), total):
            raise UnsupportedError(f"{NAME} wrote a weight into the code, expected it to be bound at load")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ExecuTorch's and torch's notes to their own developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: BaseException) -> str:
    """The lines that name an operator, else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "aten" in line or "Missing" in line]
    return f"{type(error).__name__}: " + "; ".join(line[:300] for line in (named or lines or [""])[:2])
