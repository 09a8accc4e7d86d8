"""Small modules that are no language models, each with what frameworks stumble over, and the sizes they are tried at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


class Mlp(nn.Module):
    """Numbers, a bool for each row, and int32 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 5)
        self.classes = nn.Embedding(7, 16)

    def forward(self, x: torch.Tensor, flag: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        x = torch.where(flag[:, None], x, -x) + self.classes(kind)
        return torch.softmax(self.second(functional.gelu(self.first(x))), -1)


class ConvNet(nn.Module):
    """Convolutions, batch norm, pooling, a residual, a linear head; height and width are free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.head = nn.Linear(8, 4)
        self.norm.running_mean += torch.randn(8) * 0.1
        self.norm.running_var += torch.rand(8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(torch.relu(self.norm(self.stem(image))), 3, 2, 1)
        x = x + functional.silu(self.deep(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Layer(nn.Module):
    """Token ids, a bool mask, attention by scaled_dot_product_attention, layer norm, an output tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.mixed, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        batch, length, _ = x.shape
        q, k, v = self.mixed(self.norm(x)).view(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        x = x + self.out(
            functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :]).transpose(1, 2).flatten(2)
        )
        return self.head(x)


class ManyTypes(nn.Module):
    """Outputs of several dtypes, two of them without axes."""

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "best": x.argmax(-1),
            "small": (ids * 2).to(torch.int32),
            "positive": x > 0,
            "sum": x.sum(),
            "count": (ids > 3).sum(),
            "scaled": x * ids,
        }


class PassThrough(nn.Module):
    """An output that is also an input, one that two results share, and an input that nothing reads."""

    def forward(self, x: torch.Tensor, unread: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2 + 1
        return x, y, y


class Tables(nn.Module):
    """Integer and bool buffers, constants made in forward, ranges and zeros made from sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 0, 2, 1]))
        self.register_buffer("wide", torch.tensor([[1, 2**20], [5, 7]], dtype=torch.int64))
        self.register_buffer("keep", torch.tensor([True, False, True, True]))
        self.register_buffer("scale", torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        picked = x[:, self.order] * self.keep * self.scale + torch.tensor([1.0, 2.0, 3.0, 4.0])
        positions = torch.arange(x.shape[0], device=x.device)
        full = torch.zeros(x.shape[0], 4, device=x.device) + torch.ones(4, dtype=torch.float32)
        return picked + full * positions[:, None], self.wide[positions % 2]


class NoWeights(nn.Module):
    """Only arithmetic."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) @ y.transpose(-1, -2) / (x.shape[-1] ** 0.5)


class Strided(nn.Module):
    """A parameter whose memory is a transposed view, and one that is a slice of another."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.randn(12, 6).t())
        self.part = nn.Parameter(torch.randn(6, 10)[:, 2:7])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.turned)[:, :5] + x @ self.part


class Counter(nn.Module):
    """A buffer that each call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.mul_(0.5).add_(x.mean(0))
        return x - self.seen


@dataclass(frozen=True)
class Example:
    """A module, its inputs for given sizes, and which of their axes are free: name, least and most."""

    make: Callable[[], nn.Module]
    inputs: Callable[..., dict[str, torch.Tensor]]
    dynamic: Mapping[str, Mapping[int, tuple[str, int, int]]]
    points: tuple[dict[str, int], ...]


def _ids(*shape: int, below: int) -> torch.Tensor:
    return torch.randint(0, below, shape)


def _mask(batch: int, length: int) -> torch.Tensor:
    return torch.arange(length) < torch.randint(1, length + 1, (batch, 1))


B, L, H = ("batch", 1, 9), ("length", 1, 40), ("side", 5, 33)
BATCHES: tuple[dict[str, int], ...] = ({"batch": 1}, {"batch": 2}, {"batch": 7}, {"batch": 9})
BOTH: tuple[dict[str, int], ...] = (
    {"batch": 1, "length": 1}, {"batch": 2, "length": 13}, {"batch": 5, "length": 4}, {"batch": 9, "length": 40},
)  # fmt: skip
EXAMPLES: dict[str, Example] = {
    "mlp": Example(
        Mlp,
        lambda batch: {
            "x": torch.randn(batch, 16),
            "flag": torch.rand(batch) > 0.5,
            "kind": _ids(batch, below=7).to(torch.int32),
        },
        {"x": {0: B}, "flag": {0: B}, "kind": {0: B}},
        BATCHES,
    ),
    "convnet": Example(
        ConvNet,
        lambda batch, side: {"image": torch.randn(batch, 3, side, 24)},
        {"image": {0: B, 2: H}},
        ({"batch": 1, "side": 5}, {"batch": 2, "side": 16}, {"batch": 3, "side": 9}, {"batch": 9, "side": 33}),
    ),
    "layer": Example(
        Layer,
        lambda batch, length: {"ids": _ids(batch, length, below=50), "mask": _mask(batch, length)},
        {"ids": {0: B, 1: L}, "mask": {0: B, 1: L}},
        BOTH,
    ),
    "many types": Example(
        ManyTypes,
        lambda batch: {"x": torch.randn(batch, 6), "ids": _ids(batch, 6, below=9)},
        {"x": {0: B}, "ids": {0: B}},
        BATCHES,
    ),
    "pass through": Example(
        PassThrough,
        lambda batch: {"x": torch.randn(batch, 3), "unread": torch.randn(batch, 2)},
        {"x": {0: B}, "unread": {0: B}},
        BATCHES,
    ),
    "tables": Example(Tables, lambda batch: {"x": torch.randn(batch, 4)}, {"x": {0: B}}, BATCHES),
    "no weights": Example(
        NoWeights,
        lambda batch, length: {"x": torch.randn(batch, length, 8), "y": torch.randn(batch, length, 8)},
        {"x": {0: B, 1: L}, "y": {0: B, 1: L}},
        BOTH,
    ),
    "strided": Example(Strided, lambda batch: {"x": torch.randn(batch, 6)}, {"x": {0: B}}, BATCHES),
    "counter": Example(Counter, lambda batch: {"x": torch.randn(batch, 4)}, {"x": {0: B}}, BATCHES),
    "fixed": Example(NoWeights, lambda: {"x": torch.randn(3, 4, 8), "y": torch.randn(3, 5, 8)}, {}, ({},)),
}
