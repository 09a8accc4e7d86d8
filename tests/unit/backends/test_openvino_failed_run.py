"""OpenVINO on one thread: a run that fails must be told, and not leave old numbers in the outputs."""

from __future__ import annotations

import numpy as np
import pytest

from inlay.backends.openvino.execute import OpenvinoExecutable
from inlay.errors import DeviceError
from inlay.specs.artifact import ArtifactManifest
from inlay.specs.precision import Precision
from inlay.specs.stage import Port

openvino = pytest.importorskip("openvino")


def adding() -> OpenvinoExecutable:
    """x [A, 4] + y [B, 4], which fails in the middle of a run where A and B differ."""
    from openvino import opset13

    parameters = [opset13.parameter([-1, 4], np.float32) for _ in range(2)]
    model = openvino.Model([opset13.add(*parameters)], parameters, "add")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    ports = tuple(Port(name=name, dtype="float32", shape=(size, 4)) for name, size in (("x", "A"), ("y", "B"), ("z", "A")))
    manifest = ArtifactManifest(
        version=0, backend="openvino", fingerprint={}, precision=Precision(), inputs=ports[:2], outputs=ports[2:], weights=(),
        files={},
    )  # fmt: skip
    return OpenvinoExecutable(openvino, compiled, manifest=manifest, keep=[], passed={}, report={})


def run(executable: OpenvinoExecutable, first: int, second: int) -> np.ndarray:
    for port, (rows, value) in enumerate(((first, 1.0), (second, 2.0), (first, 9.0))):
        buffer = executable.allocate(port, (rows, 4))
        buffer.write(np.full((rows, 4), value, np.float32))
        executable.bind(port, buffer)
    executable.run({"A": first, "B": second})
    return buffer.read()


def test_a_run_that_fails_inside_the_framework_raises_and_the_next_one_is_right() -> None:
    executable = adding()
    assert (run(executable, 2, 2) == 3.0).all()
    with pytest.raises(DeviceError, match=r"openvino failed in a run of \{'A': 2, 'B': 3\}"):
        run(executable, 2, 3)
    assert (run(executable, 3, 3) == 3.0).all()
