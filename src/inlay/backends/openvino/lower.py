"""Lower a captured stage to OpenVINO's IR, weights as Parameters. A torch door: runs in a compile process only."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inlay.backends.manifest import describe, need_precision
from inlay.backends.openvino.paging import paged_attention
from inlay.backends.openvino.support import GROUP_FIGURE, GROUPS, NAME, PACKAGES, PRECISIONS, RULES, import_openvino
from inlay.errors import UnsupportedError
from inlay.graph.attention import guard_masked_rows
from inlay.graph.capture import without_weights
from inlay.graph.quantise import parts_of
from inlay.graph.summary import summarize
from inlay.models import numpy_dtype
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

MODEL_FILE = "model.xml"


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write model.xml and its few constants; see the seam."""
    need_precision(NAME, request.precision, names=PRECISIONS)
    RULES.refuse(summarize(exported, NAME), interface)
    openvino = import_openvino()
    bare, names = without_weights(exported)
    figures = {GROUP_FIGURE: _group(bare, names)} if request.precision.compute == "int8" else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            extension = [paged_attention()] if interface.page else None
            model = openvino.convert_model(guard_masked_rows(bare), extension=extension)
    except Exception as error:  # whatever the frontend raises: this program does not lower here
        raise UnsupportedError(f"openvino cannot lower the program: {_reason(error)}") from error
    model = _with_all_inputs(openvino, model, bare)
    _fix_shapes(openvino, model, bare)
    openvino.save_model(model, directory / MODEL_FILE, compress_to_fp16=False)
    return describe(
        directory, backend=NAME, packages=PACKAGES, interface=interface, request=request, weights=names, figures=figures
    )


def _group(bare: Any, names: Sequence[str]) -> int:
    """The largest group that divides every row of activations that meets a weight in 8 bit: where one is not divided the
    plug-in leaves its activations as they are, without a word."""
    placeholders = [node for node in bare.graph.nodes if node.op == "placeholder"]
    parts = parts_of(dict(zip(names, (node.meta["val"] for node in placeholders), strict=False)))
    widths = {whole.numel() // scale.numel() for whole, scale in parts.values()}
    if not widths:
        raise UnsupportedError(f"{NAME} finds no weight in 8 bit in the program", hint="ask for float32")
    found = next((group for group in GROUPS if all(width % group == 0 for width in widths)), None)
    if found is None:
        shown = ", ".join(map(str, sorted(widths)))
        raise UnsupportedError(
            f"{NAME} rounds activations in groups of {GROUPS[-1]} or a multiple, and products here have rows of {shown}",
            hint="ask for int8-weights, which leaves activations in float32",
        )
    return found


def _with_all_inputs(openvino: Any, model: Any, bare: Any) -> Any:
    """The model with a Parameter for every input, also for those that converting dropped because nothing reads them."""
    placeholders = [node for node in bare.graph.nodes if node.op == "placeholder"]
    found = {name: parameter for parameter in model.get_parameters() for name in parameter.output(0).get_names()}
    if len(model.get_parameters()) == len(placeholders):
        return model
    names = [f"arg_{index}" for index in range(len(placeholders))]  # what the frontend calls inputs
    if not set(found) <= set(names):
        raise UnsupportedError(f"openvino calls the inputs of the program {sorted(found)}, expected some of {names}")
    from openvino import opset13

    parameters = []
    for name, node in zip(names, placeholders, strict=True):
        value = node.meta["val"]
        made = (
            held
            if (held := found.get(name)) is not None
            else opset13.parameter([-1] * value.dim(), numpy_dtype(str(value.dtype).removeprefix("torch.")), name=name)
        )
        parameters.append(made)
    return openvino.Model(model.get_results(), parameters, "program")


def _fix_shapes(openvino: Any, model: Any, bare: Any) -> None:
    """Give every Parameter the sizes that are known, so that the plug-in plans for them; the symbols stay free."""
    placeholders = [node for node in bare.graph.nodes if node.op == "placeholder"]
    for parameter, node in zip(model.get_parameters(), placeholders, strict=True):
        sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
        parameter.set_partial_shape(openvino.PartialShape(sizes))
    model.validate_nodes_and_infer_types()


def _reason(error: Exception) -> str:
    """The lines of a conversion error that name operations, else its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "aten::" in line or "aten." in line or "No conversion rule" in line]
    return "; ".join((named or lines or [type(error).__name__])[:2])
