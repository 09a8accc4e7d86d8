"""Lower a captured program to ExecuTorch's format, for declared sizes. A torch door: runs in a compile process only."""

from __future__ import annotations

import logging
import math
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
from inlay.backends.executorch.converting import convert
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

ROOM = 4
"""One method for all points reserves memory for the largest of all sizes together: at most so many times what they need."""
DELEGATE = "executorch_call_delegate"
log = logging.getLogger("inlay.backends")


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write program.pte with a method for each point, and how to make the file of its constants; see the seam."""
    need_precision(NAME, request.precision)
    RULES.refuse(summarize(exported, NAME), interface)
    attempts = _attempts(interface, request)
    bare, names = without_weights(guard_masked_rows(exported))
    packing = pack(bare, names)
    held = lifted_weights(exported)
    leading = [held[name] for name in packing.inputs]
    for methods in attempts:
        try:
            with _quiet():
                made = _convert(packing, leading, methods)
                program, data = bytes(made.buffer), made._tensor_data or {}
                _try(program, data, leading, methods)
            break
        except Exception as error:  # whatever the converter or its runtime raises: this program does not lower here
            if methods is attempts[-1]:
                raise UnsupportedError(f"{NAME} cannot lower the program: {_reason(error)}") from error
            log.info("%s: one method for each point, as one for all does not come about: %s", NAME, _reason(error))
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
    """A method to lower: example inputs without weights, which of their sizes are free, with least and most, and the inputs
    and the shapes of results to try it with."""

    name: str
    given: Sequence[torch.Tensor]
    free: Sequence[Mapping[int, tuple[int, int]]] | None = None
    tries: Sequence[tuple[Sequence[torch.Tensor], Sequence[tuple[int, ...]]]] = ()


def _attempts(interface: Interface, request: LowerRequest) -> list[list[Method]]:
    """The methods to lower, and others instead where that fails.

    A stage has far too many sizes for a method each: it gets one with free sizes up to the largest. So do points, where
    memory for the largest sizes is no waste; else, or where a program cannot be traced so, each gets its own.
    """
    if request.buckets is not None:
        largest = {name: max(2, size) for name, size in largest_sizes(request.buckets).items()}
        given = _zeros(interface, largest)
        free = _free(interface, {name: (1, size) for name, size in largest.items()})
        return [[Method(STAGE, given, free, [(given, ())])]]
    points = [dict(point) for point in request.points]
    if not points:
        raise UnsupportedError(f"{NAME} runs declared sizes only", hint="give buckets for a stage, points for another program")
    tries = [(_zeros(interface, point), [shape_value(port.shape, point) for port in interface.outputs]) for point in points]
    single = [Method(point_name(index), item[0], None, [item]) for index, item in enumerate(tries)]
    examples = example_sizes(points)
    if examples is None:
        return [single]
    bounds = {name: (min(point[name] for point in points), max(point[name] for point in points)) for name in points[0]}
    return [[Method(point_name(0), _zeros(interface, examples), _free(interface, bounds), tries)], single]


def example_sizes(points: Sequence[Mapping[str, int]]) -> dict[str, int] | None:
    """Sizes to trace one method for all these points with; None where each point needs its own.

    They are near the largest and no two are equal, which torch would take for one size. None: for a single point, and where
    the largest of all sizes together are over ROOM times what the largest point has.
    """
    if len(points) < 2:
        return None
    most = {name: max(point[name] for point in points) for name in points[0]}
    if math.prod(most.values()) > ROOM * max(math.prod(point.values()) for point in points):
        return None
    found: dict[str, int] = {}
    for name, size in most.items():
        least = min(point[name] for point in points)
        free = [value for value in range(size, max(least, 2) - 1, -1) if value not in found.values()]
        if not free and least < size:
            return None
        found[name] = free[0] if least < size else size
    return found


def _free(interface: Interface, bounds: Mapping[str, tuple[int, int]]) -> list[dict[int, tuple[int, int]]]:
    """Least and most of each axis of the inputs that varies."""
    varied = {name: (least, most) for name, (least, most) in bounds.items() if least < most}
    return [
        {axis: varied[size] for axis, size in enumerate(port.shape) if isinstance(size, str) and size in varied}
        for port in interface.inputs
    ]


def _convert(packing: Packing, leading: Sequence[Any], methods: Sequence[Method]) -> Any:
    programs = {method.name: _exported(packing, leading, method) for method in methods}
    edge, made = convert(programs)
    packing.counted = {name: _count(edge.exported_program(name)) for name in programs}
    return made


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
    """Load and run each method at all its points, so that what the runtime has no kernel for is told here."""
    constants = bytes(data[TAG]) if TAG in data else None  # the runtime reads these bytes without holding them
    loaded = runtime()._load_for_executorch_from_buffer(program, constants)
    for method in methods:
        for given, shapes in method.tries:
            results = loaded.run_method(method.name, [*leading, *given], False)
            for result, shape in zip(results, shapes, strict=bool(shapes)):
                if tuple(result.shape) != shape:
                    raise ValueError(f"a result has shape {list(result.shape)}, expected {list(shape)}")


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
