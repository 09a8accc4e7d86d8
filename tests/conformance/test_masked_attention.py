"""Rows of attention whose mask admits nothing: zeros, as torch gives, on every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conformance_world import COMPUTING, SLOW, need
from programs import TOLERANCE, relative_error, run_arrays, subject
from torch import nn

from inlay.graph.attention import guard_masked_rows

EVERY = [pytest.param(name, marks=pytest.mark.thorough if name in SLOW else ()) for name in COMPUTING]


class Attention(nn.Module):
    """Two heads over x [B, T, 8]; `mask` [B, T, T], bool or added to the scores."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(2, (2, 4)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads, mask.unsqueeze(1)).transpose(1, 2).flatten(2)


def inputs(kind: str, batch: int, length: int) -> dict[str, torch.Tensor]:
    """The first row of each mask admits nothing, the others what comes before them."""
    admitted = torch.ones(batch, length, length, dtype=torch.bool).tril(-1)
    added = torch.zeros(batch, length, length).masked_fill(~admitted, float("-inf"))
    return {"x": torch.randn(batch, length, 8), "mask": admitted if kind == "bool" else added}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["bool", "added"])
def test_a_row_whose_mask_admits_nothing_gives_zeros(name: str, kind: str, tmp_path: Path) -> None:
    need(name)
    names = {0: ("batch", 1, 4), 1: ("length", 1, 16)}
    points = [{"batch": 2, "length": 5}, {"batch": 3, "length": 9}]
    made = subject(Attention(), inputs(kind, 2, 5), {"x": names, "mask": {**names, 2: "length"}}, points, tmp_path)
    executable = made.lower(name).load()
    for point in points:
        arrays = made.arguments(inputs(kind, point["batch"], point["length"]))
        expected = made.expected(arrays)
        assert np.all(expected[0][:, 0] == 0) and np.abs(expected[0][:, 1:]).min() > 0
        assert relative_error(run_arrays(executable, arrays, point), expected) < TOLERANCE
    executable.close()


def test_what_masks_nothing_stays_as_it_is_and_the_given_program_too(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    plain = subject(Plain(), {"x": torch.randn(1, 2, 5, 4)}, {}, [{}], tmp_path / "plain").captured.exported
    assert guard_masked_rows(plain) is plain
    masked = subject(Attention(), inputs("bool", 2, 5), {}, [{}], tmp_path / "masked").captured.exported
    before = [node.name for node in masked.graph.nodes]
    assert len(guard_masked_rows(masked).graph.nodes) > len(before)
    assert [node.name for node in masked.graph.nodes] == before
