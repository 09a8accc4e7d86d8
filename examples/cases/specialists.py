"""Reads a line of text in a picture: mobile convolutions, then causal linear attention over the columns.

The two halves suit different frameworks. On a CPU, depthwise convolutions are fastest on OpenVINO, and the running sums that
linear attention is made of are fastest on ONNX Runtime.
"""

from __future__ import annotations

from typing import Any


def build() -> dict[str, Any]:
    """Six inverted residuals 40 wide over a picture of 32 by 512, two layers of attention 256 wide over its 64 columns."""
    return reader(channels=40, layers=6, picture=512, width=256, name="specialists")


def build_small() -> dict[str, Any]:
    """The same, to be compiled and judged in seconds."""
    return reader(channels=40, layers=4, picture=512, width=256, name="specialists-small")


def reader(*, channels: int, layers: int, picture: int, width: int, name: str) -> dict[str, Any]:
    """A builder's mapping."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)

    def convolution(before: int, after: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
        inner = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, groups=groups, bias=False)
        return nn.Sequential(inner, nn.BatchNorm2d(after))

    class InvertedResidual(nn.Module):
        """The block of MobileNet V2 and V3: widen, convolve each channel by itself, narrow."""

        def __init__(self) -> None:
            super().__init__()
            wide = 4 * channels
            self.widen = convolution(channels, wide, 1)
            self.convolve = convolution(wide, wide, 3, groups=wide)
            self.narrow = convolution(wide, channels, 1)

        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            inner = functional.hardswish(self.convolve(functional.hardswish(self.widen(seen))))
            return seen + self.narrow(inner)

    class LinearAttention(nn.Module):
        """Attention as running sums of products of keys and values, each column reading those before it."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.enter = nn.Linear(width, 3 * width)
            self.leave = nn.Linear(width, width)

        def forward(self, columns: torch.Tensor) -> torch.Tensor:
            batch, length, _ = columns.shape
            heads = self.enter(self.norm(columns)).reshape(batch, length, 3, width // 32, 32)
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            query, key = functional.elu(query) + 1, functional.elu(key) + 1
            sums = (key[..., :, None] * value[..., None, :]).cumsum(2)
            weight = (query * key.cumsum(2)).sum(-1, keepdim=True)
            read = torch.einsum("bhtd,bhtde->bhte", query, sums) / weight
            return columns + self.leave(read.transpose(1, 2).reshape(batch, length, width))

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = convolution(3, channels, 3, stride=2)
            self.look = nn.ModuleList(InvertedResidual() for _ in range(layers))
            self.fold = nn.Linear(channels * 16 * 4, width)
            self.read = nn.ModuleList(LinearAttention() for _ in range(2))
            self.say = nn.Linear(width, 96)

        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            seen = functional.hardswish(self.stem(picture))
            for layer in self.look:
                seen = layer(seen)
            batch, _, _, across = seen.shape
            columns = self.fold(seen.permute(0, 3, 1, 2).reshape(batch, across // 4, -1))
            for layer in self.read:
                columns = layer(columns)
            return self.say(columns)

    model = Reader().eval()
    return {"model": model, "args": (torch.randn(1, 3, 32, picture),), "points": [{}], "name": name}
