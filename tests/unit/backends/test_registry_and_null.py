"""Backends are found by entry point, import no SDK, and the null one answers from tokens and positions alone."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inlay import backends
from inlay.backends import backend, backend_names
from inlay.backends.refusal import Rules
from inlay.errors import DeviceError, InputError
from inlay.graph import Node, Program, Tensor
from inlay.runtime.load import load_stage_executable
from inlay.specs.artifact import LowerRequest, WeightMap, stage_interface
from inlay.specs.stage import KvLayer, StageShape

LAYER = KvLayer(key_heads=1, key_dim=4, value_heads=1, value_dim=4)
STAGE = StageShape(vocabulary=11, layers=(LAYER, msgspec.structs.replace(LAYER, window=3)))


def test_all_our_backends_come_in_by_the_plugin_door() -> None:
    assert {"contrary", "null", "onnxruntime", "openvino", "reference"} <= set(backend_names())
    for name in backend_names():
        assert backend(name).name == name
    with pytest.raises(InputError, match=r"'nobody' is not known, expected one of: contrary, "):
        backend("nobody")


def test_a_backend_whose_package_is_broken_is_told_by_name(monkeypatch) -> None:
    broken = importlib.metadata.EntryPoint(name="mychip", value="no_such_module:backend", group="inlay.backends")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [broken])
    with pytest.raises(DeviceError, match="backend mychip cannot be imported from no_such_module:backend: ModuleNotFoundError"):
        backend("mychip")


def test_a_framework_that_does_not_come_up_is_told_with_its_backend(tmp_path, monkeypatch) -> None:
    manifest = backend("null").lower(None, interface=stage_interface(STAGE), request=LowerRequest(), directory=tmp_path)

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("libchip.so.1: cannot open shared object file")

    monkeypatch.setattr(type(backend("null")), "load", broken)
    with pytest.raises(DeviceError, match=r"backend null cannot load: its framework failed with OSError: libchip\.so\.1"):
        load_stage_executable(
            tmp_path, manifest=manifest, weight_map=WeightMap(model_digest="d", weights={}), backend_name="null"
        )


def test_rules_refuse_by_operator_by_operator_and_type_and_by_type() -> None:
    rules = Rules(
        backend="mychip",
        operators={"aten.sort": "no sorting unit"},
        dtypes={"float64": "no registers"},
        typed={"aten.add": {"int64": "no adder"}, "aten.mul.Scalar": {"bool": "no"}},
    )

    def reason(operator: str, dtype: str) -> str:
        value = Tensor(dtype=dtype, shape=(2,))
        node = Node(name="y", operator=operator, inputs=("x",), outputs=(value,))
        (answer,) = rules.judge(Program(name="p", inputs={"x": value}, weights={}, nodes=(node,), outputs=("y",), digest=""))
        assert answer.supported == (not answer.reason)
        return answer.reason

    assert reason("aten.sort.stable", "float32") == "no sorting unit"
    assert reason("aten.add.Tensor", "int64") == "in int64: no adder"
    assert reason("aten.mul.Scalar", "bool") == "in bool: no"
    assert "no registers" in reason("aten.add.Tensor", "float64")
    assert reason("aten.add.Tensor", "float32") == reason("aten.mul.Tensor", "bool") == ""


def test_the_face_is_sorted_and_complete() -> None:
    assert backends.__all__ == sorted(backends.__all__) and len(backends.__all__) <= 25
    assert all(hasattr(backends, name) for name in backends.__all__)


def test_asking_what_is_available_imports_no_sdk() -> None:
    code = (
        "import sys; from inlay.backends import *\n"
        "for name in backend_names(): backend(name).available()\n"
        "sys.exit(','.join(m for m in ('torch', 'openvino', 'onnxruntime', 'onnx', 'transformers') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def loaded(tmp_path: Path, **options: str):  # type: ignore[no-untyped-def]
    found = backend("null")
    manifest = found.lower(None, interface=stage_interface(STAGE), request=LowerRequest(), directory=tmp_path)
    weights = WeightMap(model_digest="d", weights={})
    return found.load(tmp_path, manifest=manifest, weights=weights, threads=1, options=options)


def bind(executable, *, tokens, lengths, rows):  # type: ignore[no-untyped-def]
    sizes = {"B": len(tokens), "T": len(tokens[0]), "P": 8, "R": len(rows)}
    buffers = []
    for port, spec in enumerate((*executable.inputs, *executable.outputs)):
        buffers.append(executable.allocate(port, tuple(sizes.get(size, size) for size in spec.shape)))
        executable.bind(port, buffers[-1])
    for buffer, values in zip(buffers, (tokens, lengths, rows), strict=False):
        buffer.write(np.array(values))
    return buffers, sizes


def test_null_logits_depend_on_token_and_position_alone(tmp_path: Path) -> None:
    executable = loaded(tmp_path)
    buffers, sizes = bind(executable, tokens=[[1, 2, 3], [3, 0, 0]], lengths=[4, 6], rows=[2, 3])
    executable.run(sizes)
    logits = buffers[STAGE.result].read()
    assert logits.argmax(-1).tolist() == [(3 * 7 + 6 * 11 + 3) % 11] * 2 and sorted(set(logits.ravel())) == [0.0, 10.0]


def test_null_takes_the_time_it_is_told(tmp_path: Path) -> None:
    executable = loaded(tmp_path, seconds_per_run="0.02", seconds_per_token="0.01")
    _, sizes = bind(executable, tokens=[[1, 2, 3]], lengths=[0], rows=[2])
    begun = time.monotonic()
    executable.start(sizes)
    assert not executable.done() and time.monotonic() - begun < 0.04
    executable.run(sizes)
    assert executable.done() and time.monotonic() - begun >= 0.05
    with pytest.raises(InputError, match="expected seconds"):
        loaded(tmp_path, seconds_per_run="soon")
