"""Lower a captured stage to ONNX, weights as external initialisers without a file. A torch door: compile processes only."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.manifest import describe, need_precision
from inlay.backends.onnxruntime.execute import MODEL_FILE, PROVIDER, failures, first_line
from inlay.backends.onnxruntime.products import multiply_whole_numbers
from inlay.backends.onnxruntime.support import NAME, PACKAGES, PRECISIONS, RULES
from inlay.errors import UnsupportedError
from inlay.graph.attention import guard_masked_rows
from inlay.graph.capture import lifted_weights
from inlay.graph.quantise import parts_of
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

PLACEHOLDER = "bound-at-load"


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write model.onnx, a few hundred kilobytes; see the seam."""
    need_precision(NAME, request.precision, names=PRECISIONS if not request.target else ("float32",))
    RULES.refuse(summarize(exported, NAME), interface)
    try:
        model = _convert(guard_masked_rows(exported))
    except Exception as error:  # whatever the exporter raises: this program does not lower here
        raise UnsupportedError(f"onnxruntime cannot lower the program: {_reason(error)}") from error
    if request.precision.compute == "int8":
        multiply_whole_numbers(model, weights=parts_of(lifted_weights(exported)))
    names = _free_weights(model, known=set(lifted_weights(exported)))
    import onnx_ir

    onnx_ir.save(model, directory / MODEL_FILE)
    _check_kernels(directory / MODEL_FILE, {name: tensor for name, tensor in lifted_weights(exported).items() if name in names})
    return describe(directory, backend=NAME, packages=PACKAGES, interface=interface, request=request, weights=names)


def _convert(exported: Any) -> Any:
    import torch

    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # it logs that torchvision, which no language model needs, is not installed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            # Optimising here would fold transposes into renamed constants, which no checkpoint holds.
            return torch.onnx.export(exported, dynamo=True, optimize=False, verbose=False).model
    finally:
        registration.setLevel(level)


def _free_weights(model: Any, *, known: set[str]) -> tuple[str, ...]:
    """Mark the program's weights as external, to be bound at load, and drop notes that only a debugger reads."""
    import onnx_ir

    names, offset = [], 0
    for name, value in model.graph.initializers.items():
        if name not in known:
            continue
        tensor = value.const_value
        value.const_value = onnx_ir.ExternalTensor(
            PLACEHOLDER, offset, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=name
        )
        offset += tensor.nbytes
        names.append(name)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    return tuple(names)


def _check_kernels(path: Path, weights: Mapping[str, Any]) -> None:
    """Make a session as it stands, nothing optimised, so that what ONNX Runtime has no kernel for is told here."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.disable_prepacking", "1")
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor.contiguous().numpy()) for tensor in weights.values()]
    settings.add_external_initializers(list(weights), values)
    try:
        onnxruntime.InferenceSession(str(path), settings, providers=[PROVIDER])
    except failures() as error:
        raise UnsupportedError(f"onnxruntime cannot load what the program lowers to: {first_line(error)}") from error


def _reason(error: BaseException) -> str:
    """The innermost cause that names a node or an operator, else the first line."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__
    lines = [line.strip() for item in reversed(chain) for line in str(item).splitlines() if line.strip()]
    named = [line for line in lines if "aten" in line or "node" in line.lower()]
    return "; ".join((named or lines or [type(error).__name__])[:2])
