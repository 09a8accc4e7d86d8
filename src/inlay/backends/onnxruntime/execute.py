"""Load and run ONNX over mapped weights. Imports no torch: this is what a device process maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay.backends.buffer import HostBuffer
from inlay.backends.onnxruntime.support import NAME, TENSORRT
from inlay.backends.ports import check_buffer, check_dynamic, check_shape, check_sizes
from inlay.backends.seam import Buffer
from inlay.backends.weights import map_weights
from inlay.errors import ArtifactError, DeviceError, InputError
from inlay.specs.artifact import ArtifactManifest, WeightMap

MODEL_FILE = "model.onnx"
PROVIDER = "CPUExecutionProvider"
CUDA: dict[str, str] = {"use_tf32": "0"}
PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "": [(PROVIDER, {})],
    "tensorrt": [(TENSORRT, {"trt_fp16_enable": "0"}), ("CUDAExecutionProvider", CUDA), (PROVIDER, {})],
}
"""By target: those that share out a session's nodes, the first one first, all of them in float32."""


class OnnxruntimeExecutable:
    """One session and one binding, set once and run many times. `report` is what the session says it uses."""

    def __init__(self, session: Any, *, manifest: ArtifactManifest, keep: list[Any], report: dict[str, str]) -> None:
        import onnxruntime

        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._ranges = manifest.ranges
        self.report = report
        self._ports = (*self.inputs, *self.outputs)
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._names = [item.name for item in (*session.get_inputs(), *session.get_outputs())]
        self._keep = keep  # the initialisers share this memory
        self._session: Any = session
        self._binding: Any = session.io_binding()
        self._run: Any = session.run_with_iobinding
        self._failures = failures()
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)
        self._checked: dict[str, int] | None = None

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        check_shape(self._ports[port], shape)
        return HostBuffer.zeros(shape, self._ports[port].dtype)

    def bind(self, port: int, buffer: Buffer) -> None:
        if self._bound[port] is buffer:
            return
        if not isinstance(buffer, HostBuffer):
            raise DeviceError(f"onnxruntime cannot bind a {type(buffer).__name__}, expected a buffer of its own")
        check_buffer(self._ports[port], buffer)
        value = buffer.handle(NAME, self._value)
        if port < len(self.inputs):
            self._binding.bind_ortvalue_input(self._names[port], value)
        else:
            self._binding.bind_ortvalue_output(self._names[port], value)
        self._bound[port] = buffer
        self._checked = None

    def run(self, sizes: Mapping[str, int]) -> None:
        if self._checked != sizes:
            check_dynamic(sizes, self._ranges)
            check_sizes(self._ports, self._bound, sizes)
            self._checked = dict(sizes)
        try:
            self._run(self._binding)
        except self._failures as error:
            raise DeviceError(f"onnxruntime failed in a run of {dict(sizes)}: {first_line(error)}") from error

    def close(self) -> None:
        self._session = self._binding = self._run = None
        self._bound = [None] * len(self._ports)
        self._keep = []


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> OnnxruntimeExecutable:
    """Bind mapped weights as external initialisers and make the session; see the seam. It has no options.

    For a target buffers stay on the host: ONNX Runtime copies what a device needs.
    """
    for key in options:
        raise InputError(f"onnxruntime has no option {key!r}, expected none")
    import onnxruntime

    arrays = map_weights(weights, names=manifest.weights)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3
    # Threads that spin slow the next framework of the process, and cost nothing to turn off.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Where the CPU has no VNNI, sums of products of 8 bits would not fit 16: there this asks for slower kernels that are exact.
    settings.add_session_config_entry("session.x64quantprecision", "1")
    settings.add_external_initializers(list(arrays), values)
    path, providers = directory / MODEL_FILE, PROVIDERS[manifest.target]
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except failures() as error:
        raise ArtifactError(f"artifact file {str(path)!r} cannot be loaded: {first_line(error)}") from error
    report = check_report(session, manifest, settings)
    return OnnxruntimeExecutable(session, manifest=manifest, keep=[*values, *arrays.values()], report=report)


def check_report(session: Any, manifest: ArtifactManifest, settings: Any) -> dict[str, str]:
    """The session's providers, and its ports against the manifest: a float32 port is what they compute in, but for products
    of whole numbers. A provider that
    cannot start is left out by ONNX Runtime without an error: here it is one."""
    providers, asked = session.get_providers(), [name for name, _ in PROVIDERS[manifest.target]]
    if providers != asked:
        raise DeviceError(f"onnxruntime uses {', '.join(providers)}, expected {', '.join(asked)}")
    names = {"float32": "float", "float64": "double"}
    found = [item.type for item in (*session.get_inputs(), *session.get_outputs())]
    wanted = [f"tensor({names.get(port.dtype, port.dtype)})" for port in (*manifest.inputs, *manifest.outputs)]
    if found != wanted:
        raise ArtifactError(f"{MODEL_FILE} has ports of types {found}, expected {wanted}")
    return {
        "provider": ", ".join(providers),
        "precision": manifest.precision.compute,
        "threads": str(settings.intra_op_num_threads),
    }


def failures() -> tuple[type[Exception], ...]:
    """The exceptions that ONNX Runtime raises: classes of their own, each straight under Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [getattr(state, name) for name in dir(state)]
    return (RuntimeError, *(kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)))


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
