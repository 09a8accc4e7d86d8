"""What IREE has no rule for, or a wrong one, rewritten in operators that it has: against torch, a line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conformance_world import need
from lines import lines_of, worst_error

from inlay.errors import UnsupportedError

INFINITE, NONE = float("inf"), float("nan")


def numbers() -> tuple[torch.Tensor, ...]:
    """Two of [4, 6] with both signs, and one number."""
    return torch.randn(4, 6), torch.randn(4, 6), torch.tensor(-0.7)


def powers() -> tuple[torch.Tensor, ...]:
    """Bases, exponents, and whole numbers: with every sign, whole or not, and beyond all of them."""
    bases = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, INFINITE, -INFINITE, NONE])
    exponents = torch.tensor([-3.0, -2.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, INFINITE, -INFINITE, NONE])
    return bases, exponents, torch.tensor([-3, -1, 0, 1, 2, 7])


def whole() -> tuple[torch.Tensor, ...]:
    """Whole numbers with both signs, positive ones, and floats."""
    return torch.randint(-9, 9, (4, 6)), torch.randint(1, 5, (4, 6)), torch.randn(4, 6)


def pictures() -> tuple[torch.Tensor, ...]:
    """Images, and a number for each channel, twice."""
    return torch.randn(2, 4, 9, 8), torch.randn(4), torch.rand(4)


GROUPS: dict[str, tuple[Callable[[], tuple[torch.Tensor, ...]], str]] = {
    "shapes": (
        numbers,
        """
        a[:, None, :1].squeeze()
        a[:, None, :1].squeeze(1)
        a[:, None, :1].squeeze((-1, 1))
        a.squeeze(0)
        c.squeeze()
        a.unbind(1)
        a.roll((1, -2), (0, 1))
        a.roll(-9, 1)
        a.roll(5)
        c.argmax()
        c.argmin()
        F.pad(a, (-1, 2))
        F.pad(a, (-1, -2, 1, -1), value=3.0)
        torch.eye(4, 6) * a
        torch.empty_like(a).copy_(b)
        """,
    ),
    "powers": (
        powers,
        """
        torch.pow(a[:, None], b)
        torch.pow(c[:, None], b)
        torch.pow(a[:, None], c)
        torch.pow(-2, b)
        torch.pow(0, b)
        torch.pow(1.5, c)
        torch.pow(a, -1)
        torch.pow(a, -2)
        torch.pow(a, 0.5)
        torch.pow(a, 3)
        torch.pow(c, 0)
        torch.pow(c, 5)
        torch.pow(c, 2.0)
        torch.pow(c * c, 1.5)
        """,
    ),
    "quotients, remainders and counts": (
        whole,
        """
        a // b
        (a + 2**40) // b
        (a - 2**40) // 7
        torch.div(a, -b, rounding_mode="floor")
        a // 1.5
        torch.fmod(a, b)
        torch.fmod(a, -3)
        torch.fmod(a, 1.5)
        torch.fmod(a, c)
        torch.fmod(c, 0.4)
        torch.histc(c)
        torch.histc(c, 5, -1, 1)
        torch.histc(b.float(), 4, 1, 4)
        torch.histc(b.float() * 0)
        ((b - 0.5) * 0.6666666666666666).floor()
        torch.cumprod(b, 0, dtype=torch.float32)
        torch.full((4, 6), 2.0).lt(0) & (a > 0)
        torch.full((4, 6), -2.0).ge(-2) | (a > 0)
        """,
    ),
    "pictures": (
        pictures,
        """
        F.interpolate(a, scale_factor=2, mode="bilinear")
        F.interpolate(a, size=(5, 12), mode="bilinear", align_corners=True)
        F.interpolate(a, size=(5, 12), mode="nearest-exact")
        F.interpolate(a[0], size=(12,), mode="nearest")
        F.instance_norm(a)
        F.instance_norm(a, weight=b, bias=c)
        F.adaptive_avg_pool1d(a[0], 3)
        F.max_pool2d(a[0], 3, 2, 1)
        F.max_pool2d(a[0], 3, 2, 1, return_indices=True)
        """,
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_rewritten_gives_what_torch_gives(group: str, tmp_path: Path) -> None:
    need("iree")
    torch.manual_seed(0)
    make, text = GROUPS[group]
    lines = lines_of(text)
    print(f"{group}: {len(lines)} lines, {worst_error('iree', lines, make(), tmp_path):.1e}")


def test_what_is_rewritten_takes_any_size(tmp_path: Path) -> None:
    need("iree")
    torch.manual_seed(0)
    lines = [
        "a.roll((1, -2), (0, 2))",
        "(a * 9).long() // a.shape[2]",
        "torch.fmod(a, a.shape[0])",
        "F.pad(a, (0, 0, -1, a.shape[0]))",
        "torch.histc(a)",
        'F.interpolate(a, scale_factor=2, mode="bilinear")',
    ]
    print(f"{worst_error('iree', lines, pictures(), tmp_path, dynamic={'a': {0: 'batch', 2: 'side'}}):.1e}")


@pytest.mark.parametrize(
    ("line", "make", "reason"),
    [
        ("torch.pow(a, b)", whole, "not exact in whole numbers"),
        ("torch.pow(2, b)", whole, "not exact in whole numbers"),
        ("(a > 0).sort()", whole, "orders them wrongly"),
        ("torch.logcumsumexp(c * 100, 0)", whole, "which overflow"),
        ("F.max_pool2d(a, 3, 2, ceil_mode=True, return_indices=True)", pictures, "sizes are rounded up"),
    ],
)
def test_what_would_be_wrong_is_refused(
    line: str, make: Callable[[], tuple[torch.Tensor, ...]], reason: str, tmp_path: Path
) -> None:
    need("iree")
    with pytest.raises(UnsupportedError, match=reason):
        worst_error("iree", [line], make(), tmp_path)
