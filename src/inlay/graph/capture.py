"""A torch door of graph: capture a module or a stage with torch.export, and keep graphs without their weights.

Called by `runtime.lower` and, for saved graphs, by the backends that execute with torch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import Dim, ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument

from inlay.errors import ArtifactError, InputError, UnsupportedError
from inlay.graph.extract import extract, is_number, needed_for
from inlay.graph.program import Program, State
from inlay.graph.sizes import size_value, symbols_of
from inlay.graph.summary import stage_symbols, summarize

LARGEST, CORNERS = 4096, 256
DATA_DEPENDENT = re.compile(r"u\d+")  # what torch calls a size that it cannot work out from others
LEAF_WARNING = r"`isinstance\(treespec, LeafSpec\)`"  # raised inside torch 2.13 when it copies an ExportedProgram


@dataclass(frozen=True)
class Captured:
    """A captured module: the flat program (tensors in, unique computed tensors out, states as inputs and outputs), its
    summary, and what torch's symbols are called. `initial` holds the first value of each state by its name."""

    exported: ExportedProgram
    program: Program
    symbols: dict[str, str]
    initial: dict[str, torch.Tensor]


def capture(
    model: torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    name: str = "",
) -> Captured:
    """Capture a module with example inputs; it is put into evaluation mode.

    `dynamic` gives, by argument name, {axis: "batch"} or {axis: ("batch", 1, 64)} (least and most, both included), nested
    as the argument is. Sizes of one name are one size; all others are fixed. Raises UnsupportedError with operator and
    source line where the module cannot be exported, ModelError where it fails on its own example.
    """
    label = name or type(model).__name__
    ranges: dict[str, tuple[int, int]] = {}
    named = _Dims(dynamic or {}, ranges)
    exported = _export(model.eval(), tuple(args), dict(kwargs or {}), named, label)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=LEAF_WARNING, category=FutureWarning)
        exported = exported.run_decompositions({})  # makes it functional; operators stay whole, each backend has its own taste
    return _flatten(exported, named, ranges, label)


class _Dims:
    """The user's dynamic sizes as torch wants them, and their names by flat input."""

    def __init__(self, dynamic: Mapping[str, Any], ranges: dict[str, tuple[int, int]]) -> None:
        self._dynamic, self._ranges = dynamic, ranges
        self._made: dict[str, Any] = {}

    def shapes(self, *, hint: bool) -> dict[str, Any] | None:
        """For torch.export; with `hint` sizes are only hinted at, which more modules take."""
        return {key: self._convert(value, hint, key) for key, value in self._dynamic.items()} or None

    def complete(self, arguments: Mapping[str, Any], shapes: dict[str, Any] | None) -> dict[str, Any] | None:
        """The same with None for every argument that is not named. Raises InputError for a name that is no argument."""
        if shapes is None:
            return None
        strange = sorted(set(shapes) - set(arguments))
        if strange:
            raise InputError(
                f"dynamic sizes are given for {strange[0]!r}, expected one of the arguments {sorted(arguments)}",
                hint="use the names of the parameters of forward",
            )
        return {key: shapes.get(key, _all_fixed(value)) for key, value in arguments.items()}

    def names(self) -> dict[str, Any]:
        """The user's own structure."""
        return dict(self._dynamic)

    def _convert(self, value: Any, hint: bool, where: str) -> Any:
        if isinstance(value, dict) and all(isinstance(key, int) for key in value):
            return {axis: self._dim(item, hint, f"{where}[{axis}]") for axis, item in value.items()}
        if isinstance(value, dict):
            return {key: self._convert(item, hint, f"{where}.{key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._convert(item, hint, where) for item in value)
        return value

    def _dim(self, given: Any, hint: bool, where: str) -> Any:
        name, low, high = split_dim(given, where)
        before = self._ranges.setdefault(name, (low, high))
        if isinstance(given, tuple):
            self._ranges[name] = before = (low, high)
        if hint:
            return Dim.AUTO(min=before[0], max=before[1]) if before[1] < UNBOUNDED else Dim.AUTO
        if name not in self._made:
            self._made[name] = Dim(name, min=before[0], max=before[1] if before[1] < UNBOUNDED else None)
        return self._made[name]


UNBOUNDED = 2**31


def split_dim(given: Any, where: str) -> tuple[str, int, int]:
    """Name, least and most of a dynamic size as users write it. Raises InputError."""
    if isinstance(given, str) and given.isidentifier():
        return given, 1, UNBOUNDED
    match given:
        case (str() as name, int() as low, int() as high) if name.isidentifier() and 0 < low <= high:
            return name, low, high
        case _:
            raise InputError(
                f"dynamic size of {where} is {given!r}, expected a name or (name, least, most) with 1 <= least <= most",
                hint='for example {0: ("batch", 1, 64)}',
            )


def _all_fixed(value: Any) -> Any:
    return pytree.tree_map(lambda _: None, value)


def _export(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dims: _Dims, label: str) -> ExportedProgram:
    """Named sizes first; where torch cannot prove them equal or bounded, hints; then what was fixed is told."""
    import inspect

    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{label} cannot be called with its example inputs: {error}") from error
    arguments = dict(bound.arguments)
    for keyword in [key for key, item in inspect.signature(model.forward).parameters.items() if item.kind is item.VAR_KEYWORD]:
        arguments.update(arguments.pop(keyword, {}))
    for hint in (False, True):
        shapes = dims.complete(arguments, dims.shapes(hint=hint))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=LEAF_WARNING, category=FutureWarning)
                return torch.export.export(
                    model, args, kwargs, dynamic_shapes=shapes, strict=False, prefer_deferred_runtime_asserts_over_guards=True
                )
        except Exception as error:  # whatever torch.export raises
            if hint or shapes is None:
                raise export_failure(label, error) from error
    raise AssertionError("unreachable: the second try returns or raises")


def export_failure(label: str, error: Exception) -> UnsupportedError:
    """What torch.export said, with the source line of the user's module that it points at."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    data = "GuardOnDataDependent" in type(error).__name__ or "data-dependent" in text
    source = user_line(text)
    if not source:
        trace, frames = error.__traceback__, []
        while trace is not None:
            frames.append(f'File "{trace.tb_frame.f_code.co_filename}", line {trace.tb_lineno}')
            trace = trace.tb_next
        source = user_line("\n".join(frames))
    where = f" at {source}" if source else ""
    reason = "sizes or branches depend on data: " if data else ""
    first = next((line for line in lines if not line.startswith(("(", "File", "Traceback"))), type(error).__name__)
    return UnsupportedError(
        f"{label} cannot be captured by torch.export{where}: {reason}{type(error).__name__}: {first[:300]}",
        hint="run the part before that line alone, or rewrite it without a shape or branch that depends on values"
        if data
        else "torch.export must be able to trace the module; see the line named",
    )


def user_line(text: str) -> str:
    """The last `file:line` of a stack in text that is neither torch's, nor inlay's, nor Python's own."""
    found = re.findall(r'File "([^"]+)", line (\d+)', text)
    ours = [item for item in found if not re.search(r"/(torch|inlay|importlib|contextlib|functools)(/|\.py)|^<", item[0])]
    return f"{ours[-1][0]}:{ours[-1][1]}" if ours else ""


def _flatten(exported: ExportedProgram, dims: _Dims, ranges: dict[str, tuple[int, int]], label: str) -> Captured:
    """Only what the results need, tensors alone at the edges, changed buffers as inputs and outputs."""
    signature = exported.graph_signature
    if signature.user_inputs_to_mutate:
        changed = next(iter(signature.user_inputs_to_mutate.values()))
        raise UnsupportedError(f"{label} changes its input {changed!r} in place, expected it to be read only", hint="clone it")
    by_name = {node.name: node for node in exported.graph.nodes}
    for node in exported.graph.nodes:
        if node.target is torch.ops.aten.view.default:  # a kernel's real strides may not be those that torch expected
            node.target = torch.ops.aten.reshape.default
    targets = {str(spec.target): by_name[spec.arg.name] for spec in signature.input_specs if spec.target is not None}
    changed = {name: str(target) for name, target in signature.buffers_to_mutate.items()}
    results = _user_outputs(exported, by_name)
    for key, node in results:
        if isinstance(node, str) or is_number(node):
            raise UnsupportedError(f"{label} returns {key!r}, which is no tensor", hint="return tensors")
    computed = list(dict.fromkeys([node for _, node in results] + [by_name[name] for name in changed]))
    computed = [node for node in computed if node.op == "call_function"]
    held = {spec.arg.name for spec in signature.input_specs if spec.kind != InputKind.USER_INPUT}
    lifted = [key for key, node in results if node.name in held]
    if lifted:
        raise UnsupportedError(f"{label} returns {lifted[0]!r}, which is one of its own weights", hint="return a copy")
    states = [targets[target] for target in changed.values()]
    users = [
        node
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name not in held and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    flat = extract(exported, needed_for(computed), computed, inputs=[*users, *states], freed=states)
    symbols = _name_symbols(exported, users, dims, label)
    _refuse_fixed(exported, symbols, ranges, label)
    store = {**exported.constants, **exported.state_dict}
    initial = {target: store[target].detach() for target in changed.values()}
    program = summarize(
        flat,
        label,
        symbols=symbols,
        results=tuple((key, node.name) for key, node in results),
        states=tuple(State(name=target, input=targets[target].name, output=name) for name, target in changed.items()),
        ranges=ranges,
    )
    refuse_unknown_sizes(program, label)
    return Captured(exported=flat, program=program, symbols=symbols, initial=initial)


def _user_outputs(exported: ExportedProgram, by_name: Mapping[str, torch.fx.Node]) -> list[tuple[str, Any]]:
    """The module's results as (name, node), None left out; names are paths in what it returns."""
    names = [spec.arg for spec in exported.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    tree = pytree.tree_unflatten(list(range(len(names))), exported.call_spec.out_spec)
    found = []
    for path, index in pytree.tree_leaves_with_path(tree):
        argument = names[index]
        key = ".".join(str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", part)))) for part in path)
        if getattr(argument, "value", "") is None:
            continue
        found.append((key or "output", by_name.get(getattr(argument, "name", ""), str(argument))))
    return found


def _name_symbols(exported: ExportedProgram, users: Sequence[torch.fx.Node], dims: _Dims, label: str) -> dict[str, str]:
    """What the user calls each symbol; a size that torch fixed although it was named is told with its value."""
    symbols: dict[str, str] = {}
    for node in users:
        spec = _spec_of(node.name, dims.names())
        for axis, size in enumerate(node.meta["val"].shape):
            given = spec.get(axis) if isinstance(spec, dict) else None
            if given is None:
                continue
            name = split_dim(given, node.name)[0]
            if isinstance(size, int):
                raise UnsupportedError(
                    f"{label} fixes {name} = {size} (axis {axis} of input {node.name!r}), expected it to be dynamic",
                    hint="example sizes must be at least 2; or leave this size out of `dynamic` and compile once a size",
                )
            if str(size).isidentifier():
                symbols[str(size)] = name
    return symbols


def _refuse_fixed(
    exported: ExportedProgram, symbols: Mapping[str, str], ranges: Mapping[str, tuple[int, int]], label: str
) -> None:
    """Refuse a size that the module fixes by an assertion at run time, which a lowered piece does not make."""
    names = _aliases(exported, symbols)
    for node in exported.graph.nodes:
        if node.target is not torch.ops.aten._assert_scalar.default:
            continue
        found = re.search(r"Eq\((.+), (.+)\)", str(node.args[1]))
        if found is None:
            continue
        sides = [re.sub(r"\b[suz]\d+\b", lambda item: names.get(item.group(), item.group()), side) for side in found.groups()]
        if any(side.isdigit() for side in sides) and not _always_equal(sides, ranges):
            raise UnsupportedError(
                f"{label} works only where {sides[0]} = {sides[1]}, expected every declared size",
                hint="leave that size out of `dynamic`, or make the module take any",
            )


def _aliases(exported: ExportedProgram, symbols: Mapping[str, str]) -> dict[str, str]:
    """What the user calls each symbol, also those that torch found to be the same as another and put that in their place."""
    sizes = [size for node in exported.graph.nodes for size in getattr(node.meta.get("val"), "shape", ())]
    dynamic = next((size for size in sizes if isinstance(size, torch.SymInt)), None)
    replaced = {} if dynamic is None else dynamic.node.shape_env.replacements
    return {**{str(one): symbols[str(two)] for one, two in replaced.items() if str(two) in symbols}, **symbols}


def _always_equal(sides: Sequence[str], ranges: Mapping[str, tuple[int, int]]) -> bool:
    """Whether two sizes are equal at and beside both ends of all ranges; false where a symbol is not the user's."""
    ends = [(low, min(high, low + LARGEST)) for low, high in ranges.values()]
    stops = [sorted({low, min(low + 1, high), max(low, high - 1), high}) for low, high in ends]
    points = [dict(zip(ranges, point, strict=True)) for point in islice(product(*stops), CORNERS)]
    try:
        return all(size_value(sides[0], point) == size_value(sides[1], point) for point in points)
    except (InputError, ZeroDivisionError):
        return False


def refuse_unknown_sizes(program: Program, label: str) -> None:
    """Raise UnsupportedError for a tensor whose size only its values tell (`nonzero`, a mask as an index)."""
    for node in program.nodes:
        unknown = [symbol for tensor in node.outputs for size in tensor.shape for symbol in symbols_of(size)]
        if any(DATA_DEPENDENT.fullmatch(symbol) for symbol in unknown):
            where = f"{node.path or 'top level'}, {node.source or 'source unknown'}"
            raise UnsupportedError(
                f"{label} has a tensor whose size depends on data: {node.name!r} = {node.operator} ({where}), expected sizes "
                "that follow from those of the inputs",
                hint="use a mask of fixed size in its place",
            )


def _spec_of(name: str, dynamic: Any) -> Any:
    """The user's entry for a flat input such as `past_k_0`: the argument's name, then the path in its structure."""
    if name in dynamic:
        return dynamic[name]
    for key, value in dynamic.items():
        if name.startswith(f"{key}_"):
            rest: Any = value
            for part in name.removeprefix(f"{key}_").split("_"):
                if isinstance(rest, (list, tuple)) and part.isdigit():
                    rest = rest[int(part)]
                elif isinstance(rest, dict) and part in rest:
                    rest = rest[part]
                else:
                    break
            return rest
    return None


def capture_stage(stage: Any) -> ExportedProgram:
    """Capture a stage program of `inlay.models` (`extend` or `paged`) with every size free that it names.

    The result keeps weights under the stage's own names and holds at every size from 1 up. Raises UnsupportedError
    where torch.export cannot trace the model or fixes one of the sizes.
    """
    kind = getattr(stage, "model_type", type(stage).__name__)
    try:
        with torch.no_grad():
            exported = torch.export.export(
                stage,
                stage.example(),
                dynamic_shapes=stage.dynamic_shapes(),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # whatever torch.export raises: the model cannot be captured
        first = str(error).strip().splitlines()
        raise UnsupportedError(
            f"model type {kind!r} cannot be captured by torch.export: {type(error).__name__}: {first[0] if first else ''}"
        ) from error
    if exported.graph_signature.buffers_to_mutate or exported.graph_signature.user_inputs_to_mutate:
        changed = [
            *exported.graph_signature.buffers_to_mutate.values(),
            *exported.graph_signature.user_inputs_to_mutate.values(),
        ]
        raise UnsupportedError(f"model type {kind!r} changes {changed[0]!r} while it runs, expected a pure stage program")
    symbols = stage_symbols(exported)
    missing = sorted(set(stage.sizes) - set(symbols.values()))
    if missing:
        raise UnsupportedError(
            f"model type {kind!r} was captured with a fixed size for {', '.join(missing)}, expected dynamic sizes"
        )
    return exported


def lifted_weights(exported: ExportedProgram) -> dict[str, torch.Tensor]:
    """Parameters, buffers and constants of the program in the order of its inputs, by their signature targets."""
    result = {}
    for spec in exported.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT:
            store = exported.state_dict if spec.target in exported.state_dict else exported.constants
            result[spec.target] = store[spec.target].detach()
    return result


def without_weights(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[str, ...]]:
    """A copy of the program with its weights as leading ordinary inputs, and their names in that order.

    Weights that no node reads are left out. The given program stays as it was.
    """
    kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    graph, names, specs = torch.fx.Graph(), [], []
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            lifted = kinds[node.name].kind != InputKind.USER_INPUT
            if lifted and not node.users:
                continue
            if lifted:
                names.append(str(kinds[node.name].target))
            specs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None, None))
        copies[node] = graph.node_copy(node, lambda given: copies[given])
        copies[node].meta = dict(node.meta)
    outputs = [spec.arg for spec in exported.graph_signature.output_specs]
    call = ModuleCallSignature(
        inputs=[spec.arg for spec in specs],
        outputs=[TensorArgument("") for _ in outputs],  # no names, as in `extract`
        in_spec=pytree.tree_flatten((tuple(range(len(specs))), {}))[1],
        out_spec=pytree.tree_flatten(tuple(range(len(outputs))))[1],
    )
    bare = ExportedProgram(
        root=torch.nn.Module(),
        graph=graph,
        graph_signature=ExportGraphSignature(specs, list(exported.graph_signature.output_specs)),
        state_dict={},
        range_constraints=dict(exported.range_constraints),
        module_call_graph=[ModuleCallEntry("", call)],
        example_inputs=None,
        constants={},
        verifiers=exported.verifiers,
    )
    return bare, tuple(names)


def with_weights(bare: ExportedProgram, weights: Mapping[str, torch.Tensor]) -> ExportedProgram:
    """The inverse of `without_weights`: the leading inputs are lifted again, as buffers under the names of `weights`.

    The tensors are used as they are, not copied. The program takes and gives flat tuples.
    """
    specs = list(bare.graph_signature.input_specs)
    names = list(weights)
    lifted = [
        InputSpec(InputKind.BUFFER, TensorArgument(spec.arg.name), name, True) for spec, name in zip(specs, names, strict=False)
    ]
    users = specs[len(names) :]
    call = bare.module_call_graph[0].signature
    assert call is not None
    return ExportedProgram(
        root=torch.nn.Module(),
        graph=bare.graph,
        graph_signature=ExportGraphSignature([*lifted, *users], list(bare.graph_signature.output_specs)),
        state_dict=dict(weights),
        range_constraints=dict(bare.range_constraints),
        module_call_graph=[
            ModuleCallEntry(
                "",
                ModuleCallSignature(
                    inputs=[spec.arg for spec in users],
                    outputs=call.outputs,
                    in_spec=pytree.tree_flatten((tuple(range(len(users))), {}))[1],
                    out_spec=call.out_spec,
                ),
            )
        ],
        example_inputs=None,
        constants={},
        verifiers=bare.verifiers,
    )


def load_exported(path: Path) -> ExportedProgram:
    """A program that `save_graph` wrote. Raises ArtifactError."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=LEAF_WARNING, category=FutureWarning)
            return torch.export.load(path)
    except Exception as error:  # torch.export.load raises what its many readers raise
        raise ArtifactError(f"artifact file {str(path)!r} cannot be read by torch.export: {error}") from error


def save_graph(exported: ExportedProgram, path: Path) -> tuple[str, ...]:
    """Save the program without its weights; returns their names, in the order that `load_graph`'s function wants them."""
    bare, names = without_weights(exported)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=LEAF_WARNING, category=FutureWarning)
        torch.export.save(bare, path)
    return names


def load_graph(path: Path) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A saved program as a function of weights and inputs, run eagerly by torch. Raises ArtifactError."""
    module: Callable[..., tuple[torch.Tensor, ...]] = load_exported(path).graph_module
    return module
