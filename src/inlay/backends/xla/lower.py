"""Lower a captured program to StableHLO, one file for each set of declared sizes. A torch door: runs in a compile process.

JAX traces the graph node by node through the table of operators; weights are arguments of the function, before the inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.utils._pytree as pytree

from inlay.backends.manifest import describe, need_precision
from inlay.backends.processor import instructions
from inlay.backends.xla.compiled import compile_code, kept_beside, limit_threads
from inlay.backends.xla.operators import TABLE, Call
from inlay.backends.xla.points import POINTS_FILE, Point, Points, declared_points, is_ahead
from inlay.backends.xla.support import ASSERTIONS, ENVIRONMENT, NAME, PACKAGES, RULES, functional, import_jax
from inlay.backends.xla.targets import figures_of, made_with, target_device
from inlay.errors import InlayError, UnsupportedError
from inlay.graph import shape_value
from inlay.graph.capture import LEAF_WARNING, without_weights
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

Function = Callable[..., tuple[Any, ...]]


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write StableHLO for each set of declared sizes, points.json, and machine code for this CPU or figures of a target; see
    the seam."""
    need_precision(NAME, request.precision)
    points = declared_points(request, interface)
    RULES.refuse(summarize(exported, NAME), interface)
    limit_threads(request.threads)
    jax = import_jax()
    device = target_device(jax, request.target) if request.target else jax.devices("cpu")[0]
    bare, names = without_weights(_without_writing(exported))
    function, weights = as_function(bare), _weights_of(bare, len(names))
    written: list[Point] = []
    figures: dict[str, int | float] = {}
    with kept_beside(jax, directory, writes=not request.target):
        for index, sizes in enumerate(points):
            point = Point(sizes=sizes, file=f"point-{index:03d}.stablehlo", ahead=is_ahead(sizes, interface))
            shapes = [*weights, *((shape_value(port.shape, sizes), port.dtype) for port in interface.inputs)]
            try:
                code = _traced(jax, function, shapes, platform=device.platform)
                figures |= _compiled(jax, code, device, point) if point.ahead else {}
            except InlayError:
                raise
            except Exception as error:  # whatever JAX and XLA raise: this program does not lower here
                raise UnsupportedError(f"{NAME} cannot lower the program for {sizes}: {_first_line(error)}") from error
            (directory / point.file).write_bytes(code.serialize())
            written.append(point)
    found = Points(points=tuple(written), instructions="" if request.target else instructions())
    (directory / POINTS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return describe(
        directory,
        backend=NAME,
        packages=PACKAGES,
        interface=interface,
        request=request,
        weights=names,
        environment=ENVIRONMENT,
        extra=made_with(request.target),
        figures=figures if request.target else {},
    )


def _traced(jax: Any, function: Function, shapes: Sequence[tuple[tuple[int, ...], str]], *, platform: str) -> Any:
    """The function as StableHLO for these shapes and dtypes.

    It is traced for one platform, because JAX writes the code of several side by side. What the table is made of reads
    the same for all of them, so that the check of the platform at load is left out.
    """
    unchecked = [jax.export.DisabledSafetyCheck.platform()]
    export = jax.export.export(jax.jit(function), platforms=[platform], disabled_checks=unchecked)
    return export(*(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes))


def _compiled(jax: Any, code: Any, device: Any, point: Point) -> dict[str, int | float]:
    """Compile once, so that machine code is kept beside; what the compiler says of it."""
    return figures_of(compile_code(jax, code, device), point.sizes)


def _without_writing(exported: Any) -> Any:
    """The program with operators that write in place replaced by those that give what they would write."""
    operators = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    if all(functional(name) == name for name in operators):
        return exported
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=LEAF_WARNING, category=FutureWarning)
        plain = exported.run_decompositions({})
    if plain.graph_signature.user_inputs_to_mutate or plain.graph_signature.buffers_to_mutate:
        raise UnsupportedError(f"{NAME} takes no program that changes its inputs or weights in place", hint="clone them first")
    return plain


def as_function(bare: Any) -> Function:
    """The graph as a function of arrays, weights before inputs, that JAX can trace. Results in the order of the graph."""
    graph = bare.graph
    last = {argument: node for node in graph.nodes for argument in node.all_input_nodes}

    def function(*arrays: Any) -> tuple[Any, ...]:
        values: dict[Any, Any] = {}
        remaining = iter(arrays)
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = next(remaining)
            elif node.op == "output":
                return tuple(pytree.tree_leaves(_given(node.args, values)))
            else:
                values[node] = _computed(node, values)
            for argument in node.all_input_nodes:
                if last[argument] is node:
                    del values[argument]
        raise UnsupportedError(f"{NAME} was given a graph without an output")

    return function


def _weights_of(bare: Any, count: int) -> list[tuple[tuple[int, ...], str]]:
    """Shapes and dtypes of the leading placeholders, which are the weights."""
    held = [node.meta["val"] for node in bare.graph.nodes if node.op == "placeholder"][:count]
    return [(tuple(int(size) for size in value.shape), _name(value.dtype)) for value in held]


def _given(item: Any, values: dict[Any, Any]) -> Any:
    """An argument of a node as the table's functions take it: arrays, numbers, names of dtypes, nothing of torch."""
    if isinstance(item, torch.fx.Node):
        return values[item]
    if isinstance(item, (list, tuple)):
        return [_given(part, values) for part in item]
    if isinstance(item, torch.dtype):
        return _name(item)
    return None if isinstance(item, (torch.device, torch.layout, torch.memory_format)) else item


def _computed(node: Any, values: dict[Any, Any]) -> Any:
    """The value of one node. Raises UnsupportedError naming it and its source where it cannot be had."""
    name = str(node.target)
    if name.startswith(ASSERTIONS):
        return None
    arguments = [_given(item, values) for item in node.args]
    if not isinstance(node.target, torch._ops.OpOverload):  # on numbers, or a part of several results
        return node.target(*arguments)
    named = {key: _given(item, values) for key, item in node.kwargs.items()}
    leaves = [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)]
    call = Call(dtypes=tuple(_name(leaf.dtype) for leaf in leaves), common=_common(node))
    try:
        found = TABLE[name](call, *arguments, **named)
        _check(found, leaves)
    except InlayError:
        raise
    except Exception as error:  # whatever JAX raises on this node
        source = (node.meta.get("stack_trace") or "").strip().splitlines()
        where = f" ({source[-2].strip()})" if len(source) > 1 else ""
        raise UnsupportedError(f"{NAME} cannot compute node {node.name!r} = {name}{where}: {_first_line(error)}") from error
    return found


def _common(node: Any) -> str:
    """The dtype that torch gives the first two operands together."""
    held = [_like(item) for item in node.args[:2]]
    operands = [item for item in held if item is not None]
    if len(operands) == 2:
        return _name(torch.result_type(*operands))
    return _name(operands[0].dtype) if operands and isinstance(operands[0], torch.Tensor) else ""


def _like(item: Any) -> Any:
    """A small stand-in of the same dtype, with axes or without, for torch's rules of promotion."""
    if isinstance(item, torch.fx.Node):
        value = item.meta.get("val")
        if isinstance(value, torch.Tensor):
            return torch.empty((1,) if value.dim() else (), dtype=value.dtype, device="meta")
        return 1 if isinstance(value, (int, torch.SymInt)) else 1.0
    return item if isinstance(item, (bool, int, float, complex)) else None


def _check(found: Any, leaves: Sequence[torch.Tensor]) -> None:
    """Raise ValueError where dtype, rank or a fixed size of a result is not what torch says; a size is a plain number."""
    results = found if isinstance(found, (list, tuple)) else [found] if leaves else []
    for result, leaf in zip(results, leaves, strict=True):
        fixed = [size if isinstance(size, int) else None for size in leaf.shape]
        fits = len(fixed) == len(result.shape) and all(
            size is None or size == real for size, real in zip(fixed, result.shape, strict=True)
        )
        if result.dtype.name != _name(leaf.dtype) or not fits:
            raise ValueError(
                f"it gave {result.dtype.name} {list(result.shape)}, expected {_name(leaf.dtype)} {list(leaf.shape)}"
            )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
