"""The sizes that an ExecuTorch artifact is lowered for and runs at. Needs no ExecuTorch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from inlay.backends.executorch.execute import ExecutorchExecutable, _check_buckets, largest_sizes
from inlay.backends.executorch.lower import STAGE, _attempts, _look_for_leaks, example_sizes
from inlay.errors import UnsupportedError
from inlay.specs.artifact import Interface, LowerRequest, ShapeBuckets
from inlay.specs.stage import Port

BUCKETS = ShapeBuckets(batches=(1, 3), widths=(1, 5), capacities=(16, 32))
INTERFACE = Interface(
    inputs=(Port(name="x", dtype="float32", shape=("B", 4, "P")), Port(name="ids", dtype="int64", shape=("B", "T"))),
    outputs=(Port(name="y", dtype="float32", shape=("B", 4)),),
)


def test_points_are_one_method_with_free_sizes_else_one_each_and_a_stage_is_one_up_to_the_largest() -> None:
    points = ({"B": 1, "P": 16, "T": 1}, {"B": 3, "P": 32, "T": 5})
    (joint,), each = _attempts(INTERFACE, LowerRequest(points=points))
    assert joint.free == [{0: (1, 3), 2: (16, 32)}, {0: (1, 3), 1: (1, 5)}] and joint.name == "point_0"
    assert [[tuple(item.shape) for item in method.given] for method in each] == [[(1, 4, 16), (1, 1)], [(3, 4, 32), (3, 5)]]
    assert [item.dtype for item in each[0].given] == [torch.float32, torch.int64] and each[0].free is None
    assert [[tuple(item.shape) for item in given] for given, _ in joint.tries] == [
        [tuple(item.shape) for item in method.given] for method in each
    ]
    assert [shapes for _, shapes in joint.tries] == [[(1, 4)], [(3, 4)]]
    assert len({method.name for method in each}) == 2
    ((stage,),) = _attempts(INTERFACE, LowerRequest(buckets=BUCKETS))
    assert stage.name == STAGE and stage.free == [{0: (1, 3), 2: (1, 32)}, {0: (1, 3), 1: (1, 5)}]
    assert largest_sizes(BUCKETS) == {"B": 3, "T": 5, "P": 32, "R": 15}
    with pytest.raises(UnsupportedError, match=r"declared sizes only(?s:.*)points"):
        _attempts(INTERFACE, LowerRequest())


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([{"B": 4}], None),
        ([{}, {}], {}),
        ([{"B": 1, "T": 7}, {"B": 9, "T": 7}], {"B": 9, "T": 7}),
        ([{"B": 1, "T": 9}, {"B": 9, "T": 9}, {"B": 9, "T": 3}], {"B": 9, "T": 8}),
        ([{"B": 1, "T": 2}, {"B": 2, "T": 1}], None),
        ([{"B": 64, "T": 1}, {"B": 1, "T": 64}], None),
    ],
)
def test_sizes_to_trace_with_are_unlike_each_other_and_points_far_apart_share_no_memory(
    points: list[dict[str, int]], expected: dict[str, int] | None
) -> None:
    assert example_sizes(points) == expected


@pytest.mark.parametrize(("symbol", "size"), [("B", 2), ("T", 4), ("P", 20), ("R", 16), ("R", 0)])
def test_a_size_without_a_bucket_is_refused_by_name(symbol: str, size: int) -> None:
    right = {"B": 3, "T": 5, "P": 32, "R": 15}
    _check_buckets(BUCKETS, right)
    with pytest.raises(UnsupportedError, match=f"no bucket for {symbol} = {size}"):
        _check_buckets(BUCKETS, {**right, symbol: size})


def test_a_size_without_a_method_is_refused_before_anything_runs() -> None:
    executable = ExecutorchExecutable.__new__(ExecutorchExecutable)
    executable._points, executable._buckets, executable._checked = [{"B": 2}], None, None
    executable._ports, executable._bound, executable._methods = (), [], 1
    executable._check({"B": 2})
    assert executable._method == "point_0"
    with pytest.raises(UnsupportedError, match=r"no method for sizes \{'B': 3\}, expected one of \[\{'B': 2\}\]"):
        executable._check({"B": 3})


@pytest.mark.parametrize(("methods", "name"), [(1, "point_0"), (2, "point_1")])
def test_a_point_runs_its_own_method_or_the_one_of_all(methods: int, name: str) -> None:
    executable = ExecutorchExecutable.__new__(ExecutorchExecutable)
    executable._points, executable._buckets, executable._checked = [{"B": 2}, {"B": 3}], None, None
    executable._ports, executable._bound, executable._methods = (), [], methods
    executable._check({"B": 3})
    assert executable._method == name


def test_a_weight_that_got_into_the_code_is_refused() -> None:
    from inlay.backends.executorch.constants import FIRST

    def made(numbers: np.ndarray) -> SimpleNamespace:
        program = SimpleNamespace(constant_buffer=[SimpleNamespace(storage=b"")])
        named = SimpleNamespace(buffers=[numbers.tobytes()], pte_data={"key": SimpleNamespace(buffer_index=0)})
        return SimpleNamespace(_named_data=named, _emitter_output=SimpleNamespace(program=program))

    telling = np.arange(FIRST, FIRST + 8, dtype=np.int32).view(np.float32)
    _look_for_leaks(made(np.zeros(8, np.float32)), 8)
    for leaked in (telling, telling * 2, np.concatenate([telling[:1], np.ones(3, np.float32)])):
        with pytest.raises(UnsupportedError, match="wrote a weight into the code"):
            _look_for_leaks(made(leaked), 8)
