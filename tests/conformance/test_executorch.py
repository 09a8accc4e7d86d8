"""What only ExecuTorch has: one method for all declared points, fewer traces, and XNNPACK's kernels kept to what they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from conformance_world import need
from programs import relative_error, run_arrays, subject
from torch import nn
from torch.nn import functional

from inlay.backends.executorch import converting
from inlay.backends.executorch.constants import RECIPE_FILE, Recipe
from inlay.backends.executorch.execute import PROGRAM_FILE


class Net(nn.Module):
    """A convolution, a gelu by tanh, a resizing by a factor that is not the quotient of its sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.deep(x), approximate="tanh")
        return functional.interpolate(functional.max_pool2d(x, 2), scale_factor=1.7, mode="bilinear")


def test_points_share_one_method_that_is_right_at_each_of_them(tmp_path: Path) -> None:
    need("executorch")
    points = [{"batch": 1}, {"batch": 2}, {"batch": 5}]
    made = subject(Net(), {"x": torch.randn(2, 3, 9, 8)}, {"x": {0: ("batch", 1, 5)}}, points, tmp_path)
    lowered = made.lower("executorch")
    recipe = msgspec.json.decode((lowered.directory / RECIPE_FILE).read_bytes(), type=Recipe)
    assert len(recipe.delegates) == 1
    executable = lowered.load()
    for point in points:
        arrays = [np.random.default_rng(0).standard_normal((point["batch"], 3, 9, 8)).astype(np.float32)]
        assert relative_error(run_arrays(executable, arrays, point), made.expected(arrays)) < 1e-5
    executable.close()


def test_what_is_left_out_of_tracing_changes_no_byte_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("executorch")

    @contextmanager
    def always() -> Iterator[None]:
        yield

    written = []
    for name in ("quick", "slow"):
        torch.manual_seed(0)
        made = subject(Net(), {"x": torch.randn(2, 3, 9, 8)}, {}, [{}], tmp_path / name)
        written.append((made.lower("executorch").directory / PROGRAM_FILE).read_bytes())
        monkeypatch.setattr(converting, "_traced_once", always)
    assert written[0] == written[1]
