"""Compile a captured program to one shared object with AOTInductor. A torch door: runs in a compile process only.

Weights are leading inputs of the code, not its constants. Measured on six layers of width 384, one thread: the same time
within 1 % (4.1 against 4.1 ms a token, 17.1 against 17.1 ms for 64), the same memory, one second less to compile. And the
values of constants would get into the code: Inductor folds uniform ones and writes out small ones, so that one artifact
would no longer serve two sets of weights. Inputs it never sees.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends.inductor.conditions import Condition, check_conditions
from inlay.backends.inductor.support import NAME, PACKAGES, RULES, machine
from inlay.backends.manifest import describe, need_precision
from inlay.errors import UnsupportedError
from inlay.graph.capture import without_weights
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

CODE_FILE = "code.so"
CUSTOM_FILE = "code.json"  # the runner looks for it beside the code: operators that torch carries out by name
CONDITIONS_FILE = "conditions.json"
LARGEST = 4096  # of sizes that have no upper bound: those above are checked when they come
CORNERS = 64
RELATIONS = {  # by the class that sympy gives the guard
    "Equality": "==", "Unequality": "!=", "LessThan": "<=", "StrictLessThan": "<",
    "GreaterThan": ">=", "StrictGreaterThan": ">",
}  # fmt: skip
CONVOLUTIONS = ("conv", "are_strides_like_channels_last_or_false")
"""Functions of torch that ask for a convolution's order of axes."""
# Everything is said, so that no environment variable of torch changes what is compiled.
SETTINGS: dict[str, Any] = {
    "force_disable_caches": True,  # nothing of another program is looked up, nothing of this one is left behind
    "compile_threads": 1,  # no pool of processes for one shared object
    "max_autotune": False,
    "max_autotune_gemm": False,
    "max_autotune_pointwise": False,
    "freezing": False,
    "fallback_random": True,
    "cpp.threads": -1,
    "cpp.dynamic_threads": True,  # one artifact for every number of threads; costs less than what can be measured
    "cpp.enable_unsafe_math_opt_flag": False,
    "cpp.enable_floating_point_contract_flag": "off",
    # Flags of the CPU decide its vector instructions; six trial compilations would ask the same, for as many seconds.
    "cpp.vec_isa_ok": True,
    "aot_inductor.debug_compile": False,
    # A third of the compile time of a small program, for a debugger that nobody attaches.
    "aot_inductor.enable_line_tables": False,
    "aot_inductor.enable_frame_pointer": False,
    "aot_inductor.precompile_headers": False,  # no faster, and in a folder that all users of the host share
    "aot_inductor.check_lowerbound": False,  # graphs are captured with sizes from 2 and run at 1 too
}


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write code.so, and the conditions on sizes that compiling took for granted; see the seam."""
    need_precision(NAME, request.precision)
    RULES.refuse(summarize(exported, NAME), interface)
    bare, names = without_weights(exported)
    inputs = [node for node in bare.graph.nodes if node.op == "placeholder"]
    for node in inputs:  # Inductor goes by these values, whatever the example inputs are
        node.meta["val"] = _contiguous(node.meta["val"])
    values = [node.meta["val"] for node in inputs]
    known = _guards(values)
    bare._example_inputs = (tuple(values), {})
    try:
        _compile(bare, directory)
    except Exception as error:  # whatever Inductor or the C++ compiler raises: this program does not lower here
        raise UnsupportedError(f"{NAME} cannot lower the program: {_reason(error)}") from error
    symbols = _symbols(values[len(names) :], interface)
    conditions = [_condition(guard, symbols) for guard in _guards(values) if guard not in known]
    for sizes in _promised(request):
        check_conditions(conditions, sizes)
    (directory / CONDITIONS_FILE).write_bytes(msgspec.json.encode(conditions))
    return describe(
        directory,
        backend=NAME,
        packages=PACKAGES,
        interface=interface,
        request=request,
        weights=names,
        extra=machine(),
    )


def _contiguous(value: Any) -> Any:
    """An example input in C order: buffers and mapped weights are, whatever the strides of the captured tensor."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise UnsupportedError(f"{NAME} takes tensors as inputs, got {value!r} ({type(value).__name__})")
    with value.fake_mode:
        return torch.empty(value.shape, dtype=value.dtype)


def _compile(bare: Any, directory: Path) -> None:
    """The shared object, and the file of custom operators where there is one, out of Inductor's package."""
    import torch
    from torch.fx.experimental import _config as experimental

    # Choices that only a guess about sizes would decide are taken as for any size; otherwise the guess becomes a condition.
    with _own_folder() as folder, experimental.patch(backed_size_oblivious=True), _quiet():
        package = torch._inductor.aoti_compile_and_package(
            bare, package_path=str(folder / "package.pt2"), inductor_configs=dict(SETTINGS)
        )
        with zipfile.ZipFile(package) as held:
            for name in held.namelist():
                target = _target(name)
                if target:
                    with held.open(name) as source, open(directory / target, "wb") as file:
                        shutil.copyfileobj(source, file)


def _target(name: str) -> str:
    """What a file of the package is called in the artifact; empty for those that are only for people."""
    if name.endswith(".so"):
        return CODE_FILE
    return CUSTOM_FILE if name.endswith(".json") and "metadata" not in name else ""


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for everything that Inductor writes, gone afterwards."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="inlay-inductor-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["TORCHINDUCTOR_CACHE_DIR"]
            else:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's own notes to its own developers, which it makes while its compiler is imported and used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script", category=DeprecationWarning)
        yield


def _guards(values: Sequence[Any]) -> list[Any]:
    """What is taken for granted about the symbols so far, as sympy expressions."""
    import torch

    sizes = [size for value in values if isinstance(value, torch.Tensor) for size in value.shape]
    dynamic = [size for size in sizes if isinstance(size, torch.SymInt)]
    if not dynamic:
        return []
    environment = dynamic[0].node.shape_env
    deferred = [item for items in environment.deferred_runtime_asserts.values() for item in items]
    return [item.expr for item in environment.guards if not _harmless(item)] + [item.expr for item in deferred]


def _harmless(guard: Any) -> bool:
    """Whether a guard only tells how the memory of some value is described, so that its code is right for size 1 as well.

    Strides of a view (`_compute_stride`, also from inside a reshape) are taken as for sizes above 1: a stride that generally
    breaks a run of adjacent elements is taken to break it, which forgoes a merge of axes at most; and the stride of an axis of
    size 1 is never used. Assuming that two strides *are* equal would not be harmless. A convolution asks which library will
    carry it out, for the order of axes in its result: the same order for every number of rows.
    """
    place = guard.sloc.framework_loc
    if place is None or isinstance(place, str):
        return False
    strides = place.name == "_compute_stride" or ".reshape(" in (place.line or "")
    if not strides and place.name not in CONVOLUTIONS:
        return False
    above_one = type(guard.expr).__name__ == "StrictGreaterThan" and guard.expr.args[1] == 1
    return above_one or (strides and type(guard.expr).__name__ in ("Unequality", "StrictLessThan"))


def _symbols(values: Sequence[Any], interface: Interface) -> dict[str, str]:
    """What the interface calls each of torch's symbols."""
    found: dict[str, str] = {}
    for value, port in zip(values, interface.inputs, strict=True):
        for size, name in zip(value.shape, port.shape, strict=True):
            if isinstance(name, str) and name.isidentifier() and str(size).isidentifier():
                found[str(size)] = name
    return found


def _condition(guard: Any, symbols: dict[str, str]) -> Condition:
    """A guard as (left, relation, right) in the interface's symbols, for the executable to check. Raises UnsupportedError."""
    relation = RELATIONS.get(type(guard).__name__)
    unknown = sorted(str(item) for item in guard.free_symbols if str(item) not in symbols)
    if relation is None or unknown:
        what = f"sizes {', '.join(unknown)} that no input has" if unknown else "a condition that cannot be checked"
        raise UnsupportedError(f"{NAME} compiled the program for {guard} only, {what}", hint="declare the size as fixed")
    left, right = (re.sub(r"\b[a-z]+\d+\b", lambda found: symbols[found.group()], str(side)) for side in guard.args)
    return left, relation, right


def _promised(request: LowerRequest) -> list[dict[str, int]]:
    """Sizes that the request asks for: its points, and the corners of its ranges; LARGEST where there is no upper bound."""
    bounds = [[(name, low), (name, min(high, max(low, LARGEST)))] for name, (low, high) in request.ranges.items()]
    corners = [dict(corner) for corner in itertools.islice(itertools.product(*bounds), CORNERS)] if bounds else []
    return [*request.points, *corners]


def _reason(error: BaseException) -> str:
    """The lines that name an operator or the C++ compiler's complaint, else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("target:") or " error: " in line or "aten." in line]
    first = lines[0] if lines else ""
    return f"{type(error).__name__}: " + "; ".join(dict.fromkeys([first[:300], *(line[:200] for line in named[:2])]))
