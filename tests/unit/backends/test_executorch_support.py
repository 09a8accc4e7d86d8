"""What ExecuTorch refuses by a node's arguments. Needs no ExecuTorch."""

from __future__ import annotations

import torch
from torch import nn

from inlay.backends.executorch.support import supports
from inlay.graph.capture import capture


class Padded(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, self.widths) + 1.0


def refused(module: nn.Module) -> list[str]:
    program = capture(module, (torch.randn(2, 5),)).program
    return [item.reason for item in supports(program).nodes if not item.supported]


def test_a_padding_that_crops_is_refused_and_others_are_taken() -> None:
    assert refused(Padded(1, 2)) == []
    assert refused(Padded(-1, 2)) == ["its padding does not crop"]
