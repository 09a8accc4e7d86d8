"""Which nodes are kept from XNNPACK because it computes something else. Needs no ExecuTorch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inlay.backends.executorch.converting import is_right


def node(*args: Any, given: tuple[int, ...] = (1, 2, 8, 8), result: tuple[int, ...] = (1, 2, 8, 8), **kwargs: Any) -> Any:
    first = SimpleNamespace(meta={"val": torch.empty(given)})
    return SimpleNamespace(args=(first, *args), kwargs=kwargs, meta={"val": torch.empty(result)})


@pytest.mark.parametrize(
    ("operator", "asked", "right"),
    [
        ("gelu.default", node(), True),
        ("gelu.default", node(approximate="none"), True),
        ("gelu.default", node(approximate="tanh"), False),
        ("prelu.default", node(), True),
        ("prelu.default", node(given=(4, 3)), False),
        ("upsample_bilinear2d.vec", node([16, 16], False, None, result=(1, 2, 16, 16)), True),
        ("upsample_bilinear2d.vec", node(None, False, [2.0, 2.0], result=(1, 2, 16, 16)), True),
        ("upsample_bilinear2d.vec", node(None, False, [1.7, 1.7], result=(1, 2, 13, 13)), False),
        ("upsample_bilinear2d.vec", node(None, True, [1.7, 1.7], result=(1, 2, 13, 13)), True),
        ("mul.Tensor", node(), True),
        ("cat.default", SimpleNamespace(args=([node(), node()], 1), kwargs={}), True),
    ],
)
def test_a_node_that_xnnpack_computes_otherwise_is_kept_from_it(operator: str, asked: Any, right: bool) -> None:
    assert is_right(operator, asked) is right
