"""Load and run OpenVINO's IR over mapped weights. Imports no torch: this is what a device process maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.buffer import HostBuffer
from inlay.backends.openvino.paging import state_heads
from inlay.backends.openvino.support import GROUP_FIGURE, LEAST, MOST, NAME, import_openvino
from inlay.backends.ports import check_buffer, check_dynamic, check_shape, check_sizes
from inlay.backends.seam import Array, Buffer
from inlay.backends.weights import map_weights, seeming_writable
from inlay.errors import ArtifactError, DeviceError, InputError
from inlay.specs.artifact import ArtifactManifest, WeightMap

MODEL_FILE = "model.xml"
TYPE_NAMES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""By what products are computed in: what everything else is, attention and KV among it."""
OPTIONS = ("cache_dir",)


class OpenvinoExecutable:
    """One compiled model and one infer request with its tensors set once. `report` is what the plug-in says it uses."""

    def __init__(
        self,
        openvino: Any,
        compiled: Any,
        *,
        manifest: ArtifactManifest,
        keep: list[Array],
        passed: Mapping[int, int],
        report: dict[str, str],
    ) -> None:
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._ranges = manifest.ranges
        self.report = report
        self._ports = (*self.inputs, *self.outputs)
        self._tensor = lambda array: openvino.Tensor(array, shared_memory=True)
        self._keep = keep  # the constants share this memory
        self._compiled: Any = compiled
        self._request: Any = None if compiled is None else compiled.create_infer_request()
        self._passed = dict(passed)
        computed = [index for index in range(len(self.outputs)) if index not in passed]
        self._places = {index: place for place, index in enumerate(computed)}
        self._wide = [index for index, port in enumerate(self.inputs) if port.dtype == "int64"]
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)
        self._checked: dict[str, int] | None = None

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        check_shape(self._ports[port], shape)
        return HostBuffer.zeros(shape, self._ports[port].dtype)

    def bind(self, port: int, buffer: Buffer) -> None:
        if self._bound[port] is buffer:
            return
        if not isinstance(buffer, HostBuffer):
            raise DeviceError(f"openvino cannot bind a {type(buffer).__name__}, expected a buffer of its own")
        check_buffer(self._ports[port], buffer)
        tensor = buffer.handle(NAME, self._tensor)
        count = len(self.inputs)
        try:
            if self._request is None:
                pass
            elif port < count:
                self._request.set_input_tensor(port, tensor)
            elif port - count in self._places:
                self._request.set_output_tensor(self._places[port - count], tensor)
        except RuntimeError as error:
            raise DeviceError(
                f"openvino cannot bind a buffer of shape {list(buffer.shape)} to port {self._ports[port].name!r}: "
                f"{_first_line(error)}"
            ) from error
        self._bound[port] = buffer
        self._checked = None

    def run(self, sizes: Mapping[str, int]) -> None:
        if self._checked != sizes:
            check_dynamic(sizes, self._ranges)
            check_sizes(self._ports, self._bound, sizes)
            self._checked = dict(sizes)
        for index in self._wide:
            _check_wide(f"port {self.inputs[index].name!r}", self._bound[index])
        try:
            if self._request is not None:
                self._request.start_async()  # not infer(): on one thread it hides that a run has failed
                self._request.wait()
        except RuntimeError as error:
            raise DeviceError(f"openvino failed in a run of {dict(sizes)}: {_first_line(error)}") from error
        for target, source in self._passed.items():
            given, result = self._bound[source], self._bound[len(self.inputs) + target]
            if given is not None and result is not None:
                result.write(given.array)

    def close(self) -> None:
        self._request = self._compiled = None
        self._bound = [None] * len(self._ports)
        self._keep = []


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> OpenvinoExecutable:
    """Bind mapped weights as constants over shared memory and compile with every precision asked for; see the seam.

    The option `cache_dir` names a folder for the plug-in's own cache of compiled models.
    """
    for key in options:
        if key not in OPTIONS:
            raise InputError(f"openvino has no option {key!r}, expected one of: {', '.join(OPTIONS)}")
    openvino = import_openvino()
    core = openvino.Core()
    if manifest.page:
        core.get_property("CPU", "FULL_DEVICE_NAME")  # read_model knows the operator once the plug-in has come
    try:
        model = core.read_model(directory / MODEL_FILE)
    except RuntimeError as error:
        raise ArtifactError(f"artifact file {str(directory / MODEL_FILE)!r} cannot be read: {_first_line(error)}") from error
    arrays = map_weights(weights, names=manifest.weights)
    keep = _bind_constants(model, manifest, arrays)
    if manifest.page:
        state_heads(model, manifest)
    passed = _take_out_passed(model)
    asked = {
        "INFERENCE_PRECISION_HINT": TYPE_NAMES[manifest.precision.compute],
        "KV_CACHE_PRECISION": TYPE_NAMES[manifest.precision.kv],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": int(manifest.figures.get(GROUP_FIGURE, 0)),
    }
    extra = {"CACHE_DIR": options["cache_dir"]} if "cache_dir" in options else {}
    if not model.get_results():
        report = {"precision": manifest.precision.compute}
        return OpenvinoExecutable(openvino, None, manifest=manifest, keep=keep, passed=passed, report=report)
    try:
        compiled = core.compile_model(model, "CPU", {**asked, **extra})
    except RuntimeError as error:
        raise DeviceError(f"openvino cannot compile the artifact: {_first_line(error)}") from error
    if any(_is_passed(result) for result in compiled.get_runtime_model().get_results()):
        raise DeviceError("openvino made an output of an input itself, and would then write over the input")
    _check_whole_numbers(compiled, arrays)
    report = _check_report(compiled, manifest, asked)
    return OpenvinoExecutable(openvino, compiled, manifest=manifest, keep=keep, passed=passed, report=report)


def _take_out_passed(model: Any) -> dict[int, int]:
    """Remove outputs that are inputs as they came, and say which: the executable copies them.

    Left in, the plug-in makes one memory of both, so that binding the output's buffer takes the input's values away.
    """
    names = {parameter.get_friendly_name(): index for index, parameter in enumerate(model.get_parameters())}
    found = {}
    for index, result in enumerate(model.get_results()):
        if _is_passed(result):
            found[index] = names[result.input_value(0).get_node().get_friendly_name()]
            model.remove_result(result)
    return found


def _is_passed(result: Any) -> bool:
    return bool(result.input_value(0).get_node().get_type_name() == "Parameter")


def _check_wide(what: str, buffer: HostBuffer | None) -> None:
    """Raise DeviceError for a whole number that the plug-in would cut off."""
    if buffer is None or not buffer.array.size:
        return
    least, most = int(buffer.array.min()), int(buffer.array.max())
    if least < LEAST or most > MOST:
        value = least if least < LEAST else most
        raise DeviceError(
            f"openvino computes int64 in 32 bits, and {what} holds {value}, expected {LEAST} to {MOST}",
            hint="place what reads it on another backend",
        )


def _bind_constants(model: Any, manifest: ArtifactManifest, arrays: dict[str, Array]) -> list[Array]:
    """Replace the leading Parameters, which are the weights in the manifest's order, by constants over their memory."""
    from openvino import opset13

    parameters = model.get_parameters()
    if len(parameters) != len(manifest.weights) + len(manifest.inputs):
        raise ArtifactError(
            f"{MODEL_FILE} has {len(parameters)} inputs, expected {len(manifest.weights)} weights "
            f"and {len(manifest.inputs)} ports"
        )
    keep = []
    for parameter, name in zip(parameters, manifest.weights, strict=False):
        array = arrays[name]
        if array.dtype.name == "int64":
            _check_wide(f"weight {name!r}", HostBuffer(array))
        if tuple(parameter.get_partial_shape().to_shape()) != array.shape:
            raise ArtifactError(f"weight {name!r} has shape {list(array.shape)}, expected {parameter.get_partial_shape()}")
        parameter.output(0).replace(opset13.constant(seeming_writable(array), shared_memory=True).output(0))
        model.remove_parameter(parameter)
        keep.append(array)
    return keep


def _check_whole_numbers(compiled: Any, arrays: Mapping[str, Array]) -> None:
    """Raise DeviceError where the plug-in does not compute with the weights in 8 bit as they are."""
    given = sum(array.dtype.name == "int8" for array in arrays.values())
    if not given:
        return
    products = [node for node in compiled.get_runtime_model().get_ops() if _is_product(node)]
    kept = sum(any(item.get_element_type().get_type_name() == "i8" for item in node.inputs()) for node in products)
    if kept < given:
        raise DeviceError(
            f"openvino keeps {kept} of {given} weights in 8 bit and makes float32 of the others", hint="ask for float32"
        )


def _is_product(node: Any) -> bool:
    return node.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "MatMul")


def _check_report(compiled: Any, manifest: ArtifactManifest, asked: Mapping[str, Any]) -> dict[str, str]:
    """What the plug-in reports for each thing asked; DeviceError where it decided otherwise."""
    report = {key: _type_name(compiled.get_property(key)) for key in asked}
    for key, value in asked.items():
        wanted = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(str(value), str(value))
        if report[key] != wanted:
            raise DeviceError(
                f"openvino reports {key} = {report[key]} but {wanted} was asked for",
                hint="this CPU may lack the type; ask for float32 in the precision of its region",
            )
    return {**report, "precision": manifest.precision.compute}


def _type_name(value: Any) -> str:
    text = value.get_type_name() if hasattr(value, "get_type_name") else str(value)
    return {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(text, text)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
