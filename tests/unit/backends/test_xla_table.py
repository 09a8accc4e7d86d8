"""XLA's table of operators: real names only, read without a framework; what is refused has a reason."""

from __future__ import annotations

import subprocess
import sys

import pytest

from inlay.backends import backend
from inlay.backends.xla.operators import TABLE
from inlay.backends.xla.points import declared_points, is_ahead
from inlay.backends.xla.support import functional
from inlay.errors import UnsupportedError
from inlay.graph import Node, Program, Tensor
from inlay.specs.artifact import Interface, LowerRequest, ShapeBuckets

FOREIGN = ("transformers.grouped_mm_fallback.default",)
"""Registered by another library when it is imported."""


def program(operator: str, *, arguments: str = "[[], []]", dtype: str = "float32") -> Program:
    """One node over `x`."""
    tensor = Tensor(dtype=dtype, shape=(2, 3))
    node = Node(name="made", operator=operator, inputs=("x",), outputs=(tensor,), arguments=arguments)
    return Program(name="one", inputs={"x": tensor}, weights={}, nodes=(node,), outputs=("made",), digest="")


def reason(operator: str, **more: str) -> str:
    [answer] = backend("xla").supports(program(operator, **more), device="cpu:0").nodes
    return answer.reason


def test_every_row_is_an_operator_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for name in set(TABLE) - set(FOREIGN):
        room, operator, overload = name.split(".")
        assert hasattr(getattr(getattr(torch.ops, room), operator), overload), name


def test_supports_answers_without_a_framework() -> None:
    script = (
        "import sys\nfrom inlay.backends import backend\nfrom inlay.graph import Program\n"
        "backend('xla').supports(Program(name='', inputs={}, weights={}, nodes=(), outputs=(), digest=''), device='cpu:0')\n"
        "print(sorted({'jax', 'jaxlib', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_what_is_refused_has_its_reason() -> None:
    assert reason("aten.tanh.default") == reason("aten.tanh_.default") == reason("<built-in function mul>") == ""
    assert "no row" in reason("aten.linalg_qr.default")
    assert "random" in reason("aten.rand_like.default")
    assert "8 bits" in reason("aten.tanh.default", dtype="float8_e4m3fn")
    train = '[[{"node":"x"},["float","0.5"],["bool","True"]],[]]'
    assert "at random" in reason("aten.dropout.default", arguments=train) and reason("aten.dropout.default") == ""


def test_what_writes_in_place_is_told_from_operators_with_underscores() -> None:
    assert functional("aten.add_.Tensor") == "aten.add.Tensor"
    assert functional("aten.__and__.Tensor") == "aten.__and__.Tensor"
    assert functional("aten._softmax.default") == "aten._softmax.default"


def test_declared_points_are_the_points_or_every_combination_of_the_buckets() -> None:
    plain = Interface(inputs=(), outputs=())
    points = ({"batch": 1}, {"batch": 4})
    assert declared_points(LowerRequest(points=points), plain) == points
    assert is_ahead({"R": 5, "B": 2}, plain)
    buckets = ShapeBuckets(batches=(1, 2), widths=(1, 4), capacities=(8, 16))
    assert len(declared_points(LowerRequest(buckets=buckets), plain)) == 2 * 2 * 2
    with pytest.raises(UnsupportedError, match="declared sizes only"):
        declared_points(LowerRequest(), plain)
