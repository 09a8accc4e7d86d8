"""The sizes that an ExecuTorch artifact is lowered for and runs at. Needs no ExecuTorch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from inlay.backends.executorch.execute import ExecutorchExecutable, _check_buckets, largest_sizes
from inlay.backends.executorch.lower import STAGE, _look_for_leaks, _methods
from inlay.errors import UnsupportedError
from inlay.specs.artifact import Interface, LowerRequest, ShapeBuckets
from inlay.specs.stage import Port

BUCKETS = ShapeBuckets(batches=(1, 3), widths=(1, 5), capacities=(16, 32))
INTERFACE = Interface(
    inputs=(Port(name="x", dtype="float32", shape=("B", 4, "P")), Port(name="ids", dtype="int64", shape=("B", "T"))),
    outputs=(Port(name="y", dtype="float32", shape=("B", 4)),),
)


def test_each_point_is_a_method_of_its_own_and_a_stage_one_method_of_all_sizes_up_to_the_largest() -> None:
    points = ({"B": 1, "P": 16, "T": 1}, {"B": 3, "P": 32, "T": 5})
    found = _methods(INTERFACE, LowerRequest(points=points))
    assert [[tuple(item.shape) for item in method.given] for method in found] == [[(1, 4, 16), (1, 1)], [(3, 4, 32), (3, 5)]]
    assert [item.dtype for item in found[0].given] == [torch.float32, torch.int64] and found[0].free is None
    assert len({method.name for method in found}) == 2
    (stage,) = _methods(INTERFACE, LowerRequest(buckets=BUCKETS))
    assert stage.name == STAGE and stage.free == [{0: (1, 3), 2: (1, 32)}, {0: (1, 3), 1: (1, 5)}]
    assert largest_sizes(BUCKETS) == {"B": 3, "T": 5, "P": 32, "R": 15}
    with pytest.raises(UnsupportedError, match=r"declared sizes only(?s:.*)points"):
        _methods(INTERFACE, LowerRequest())


@pytest.mark.parametrize(("symbol", "size"), [("B", 2), ("T", 4), ("P", 20), ("R", 16), ("R", 0)])
def test_a_size_without_a_bucket_is_refused_by_name(symbol: str, size: int) -> None:
    right = {"B": 3, "T": 5, "P": 32, "R": 15}
    _check_buckets(BUCKETS, right)
    with pytest.raises(UnsupportedError, match=f"no bucket for {symbol} = {size}"):
        _check_buckets(BUCKETS, {**right, symbol: size})


def test_a_size_without_a_method_is_refused_before_anything_runs() -> None:
    executable = ExecutorchExecutable.__new__(ExecutorchExecutable)
    executable._points, executable._buckets, executable._checked = [{"B": 2}], None, None
    executable._ports, executable._bound = (), []
    executable._check({"B": 2})
    assert executable._method == "point_0"
    with pytest.raises(UnsupportedError, match=r"no method for sizes \{'B': 3\}, expected one of \[\{'B': 2\}\]"):
        executable._check({"B": 3})


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
