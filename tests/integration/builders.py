"""Small modules for tests of the compile path: builders as `inlay compile` calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HIDDEN = 32
DYNAMIC = {"input_ids": {0: ("batch", 1, 8), 1: ("length", 1, 64)}, "attention_mask": {0: "batch", 1: "length"}}
POINTS = [{"batch": 2, "length": 16}, {"batch": 3, "length": 7}]


def _ids() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": torch.randint(0, 90, (2, 9)), "attention_mask": mask}


def _loud(model: nn.Module) -> nn.Module:
    """Weights large enough that an error shows."""
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1) + (parameter.ndim == 1)
    return model


def encoder(layers: int = 4) -> dict[str, Any]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(
        BertConfig(hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64, vocab_size=97)
    )
    return {"model": _loud(model), "kwargs": _ids(), "dynamic": DYNAMIC, "points": POINTS, "name": "small encoder"}


def thirty_layers() -> dict[str, Any]:
    return {**encoder(30), "points": [{"batch": 2, "length": 8}], "name": "thirty layers"}


class Stateful(nn.Module):
    """A convolution over the last inputs and a recurrent state, both kept in buffers, between stateless layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 16)
        self.mix = nn.Linear(16, 16)
        self.leave = nn.Linear(16, 8)
        self.register_buffer("window", torch.zeros(4, 16))
        self.register_buffer("carried", torch.linspace(-1, 1, 16))  # states need not begin at zero

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        entered = torch.tanh(self.enter(x))
        window = torch.cat([self.window[1:], entered.mean(0, keepdim=True)])
        self.window.copy_(window)
        carried = 0.9 * self.carried + torch.tanh(self.mix(window.sum(0)))
        self.carried.copy_(carried)
        return self.leave(entered + carried)


def stateful() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"model": Stateful(), "args": (torch.randn(3, 8),), "dynamic": {"x": {0: ("rows", 1, 16)}}, "name": "stateful"}


class TiedEnds(nn.Module):
    """One embedding used at both ends, a tuple-valued operator in the middle, a size used far from where it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 16)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.first(self.embedding(ids)))
        values, places = hidden.topk(4, dim=-1)
        hidden = self.second(hidden + values.mean(-1, keepdim=True)) / ids.shape[1]
        return {"logits": hidden @ self.embedding.weight.T, "places": places}


def tied_ends() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "model": TiedEnds(),
        "args": (torch.randint(0, 50, (2, 6)),),
        "dynamic": {"ids": {0: ("batch", 1, 8), 1: ("length", 1, 32)}},
        "name": "tied ends",
    }


class Counting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x[x > 0]
        if kept.shape[0] > 3:
            return kept.sum() * x
        return x


def data_dependent() -> dict[str, Any]:
    return {"model": Counting(), "args": (torch.randn(4, 4),), "dynamic": {"x": {0: ("rows", 1, 8)}}}


class Fixing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(4, 4) * 2


def fixed_size() -> dict[str, Any]:
    return {"model": Fixing(), "args": (torch.randn(4, 4),), "dynamic": {"x": {0: ("rows", 1, 8)}}}


class Halves(nn.Module):
    """Two stacks of different kinds: convolutions, then linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.layers = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(self.convolutions(image).mean((2, 3)))


def halves() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "model": Halves(),
        "args": (torch.randn(2, 3, 16, 16),),
        "dynamic": {"image": {0: ("batch", 1, 8)}},
        "points": [{"batch": 1}, {"batch": 4}],
        "name": "halves",
    }


class _Convolutions(nn.Module):
    """Two convolutions with batch norm between them, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.second, self.head = nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(image)))
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


def convolutions() -> dict[str, Any]:
    """A small convnet of fixed sizes."""
    torch.manual_seed(5)
    return {"model": _Convolutions().eval(), "args": (torch.randn(2, 3, 32, 32),), "name": "convolutions"}
