"""Calls of torch, a line each, over the same tensors: many in one program of a backend, each result compared by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from programs import relative_error, run_arrays, subject
from torch import nn
from torch.nn import functional as F

TOLERANCE = 2e-5
WORDS = {"torch": torch, "F": F, "attend": F.scaled_dot_product_attention}


class Of(nn.Module):
    """All lines of a group over the same inputs, each result under its line's number."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__()
        self.cases = [eval(f"lambda a, b, c: {line}", WORDS) for line in lines]

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        for number, case in enumerate(self.cases):
            result = case(a, b, c)
            for part, item in enumerate(result if isinstance(result, (tuple, list)) else [result]):
                found[f"{number}.{part}"] = item.clone()
        return found


def lines_of(text: str) -> list[str]:
    """One line for each call."""
    return [line.strip() for line in text.strip().splitlines()]


def worst_error(
    backend: str,
    lines: Sequence[str],
    inputs: Sequence[torch.Tensor],
    folder: Path,
    *,
    dynamic: Mapping[str, Any] | None = None,
) -> float:
    """The largest relative error of the lines on this backend; fails at the first line that is not what torch gives."""
    made = subject(Of(lines), dict(zip("abc", inputs, strict=True)), dynamic or {}, [{}], folder)
    executable = made.lower(backend).load()
    arrays = [item.numpy() for item in inputs]
    found, expected = run_arrays(executable, arrays, made.sizes(arrays)), made.expected(arrays)
    executable.close()
    names = {node: key for key, node in zip(made.captured.program.results, made.captured.program.outputs, strict=True)}
    operators = {node.name: node.operator for node in made.captured.program.nodes}
    worst = 0.0
    for port, one, two in zip(made.interface.outputs, found, expected, strict=True):
        both = [np.nan_to_num(item, nan=7.0, posinf=9.0, neginf=-9.0) for item in (one, two)]
        error = relative_error(both[:1], both[1:])
        line = lines[int(names[port.name].split(".")[0])]
        assert error < TOLERANCE, f"{line} ({operators[port.name]}): {error}\n{one}\n{two}"
        worst = max(worst, error)
    return worst
