"""A torch door: small models with random weights that the kit captures, hand-written and transformers' own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inlay.runtime.conformance.trials import ROWS, side_name

Range = tuple[str, int, int]


class Mlp(nn.Module):
    """Numbers, a truth value for each row, int32 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 5)
        self.classes = nn.Embedding(7, 16)

    def forward(self, x: Tensor, flag: Tensor, kind: Tensor) -> Tensor:
        x = torch.where(flag[:, None], x, -x) + self.classes(kind)
        return torch.softmax(self.second(functional.gelu(self.first(x))), -1)


class ConvNet(nn.Module):
    """Convolutions, grouped ones too, batch norm, pooling, a residual, a linear head; batch and height are free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.deep, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.norm(self.stem(image))), 3, 2, 1)
        x = x + functional.silu(self.deep(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class TextEncoder(nn.Module):
    """Token ids with a mask, attention over all of them, layer norm, a tied head, sizes computed from sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 32), nn.Embedding(64, 32)
        self.mixed, self.out, self.norm = nn.Linear(32, 96), nn.Linear(32, 32), nn.LayerNorm(32)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        batch, length = ids.shape
        x = self.norm(self.words(ids) + self.places(torch.arange(length, device=ids.device)))
        q, k, v = self.mixed(x).view(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        logits = (x + self.out(attended.transpose(1, 2).flatten(2))) @ self.words.weight.T
        return {"rows": logits.reshape(batch * length, 50), "first half": logits[:, : length // 2 + 1]}


class Decoder(nn.Module):
    """Two layers with rotary positions, grouped queries, causal attention, RMS norm and a gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(61, 32)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"q": nn.Linear(32, 32), "kv": nn.Linear(32, 32), "o": nn.Linear(32, 32), "gate": nn.Linear(32, 48),
                           "up": nn.Linear(32, 48), "down": nn.Linear(48, 32), "one": nn.RMSNorm(32), "two": nn.RMSNorm(32)})
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(32, 61, bias=False)
        self.register_buffer("rates", 1.0 / 100.0 ** (torch.arange(0, 8, 2) / 8), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        batch, length = ids.shape
        angles = torch.arange(length, device=ids.device)[:, None] * self.rates
        turn = torch.cat([angles, angles], -1)
        hidden = torch.triu(torch.full((length, length), -math.inf, device=ids.device), 1)
        x = self.words(ids)
        for layer in self.layers:
            y = layer["one"](x)
            q = _turned(layer["q"](y).view(batch, length, 4, 8).transpose(1, 2), turn)
            k, v = layer["kv"](y).view(batch, length, 2, 2, 8).permute(2, 0, 3, 1, 4)
            k, v = (item.repeat_interleave(2, dim=1) for item in (_turned(k, turn), v))
            scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(8) + hidden, -1)
            x = x + layer["o"]((scores @ v).transpose(1, 2).flatten(2))
            y = layer["two"](x)
            x = x + layer["down"](functional.silu(layer["gate"](y)) * layer["up"](y))
        return self.head(x)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    one, two = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-two, one], -1) * angles.sin()


class Stream(nn.Module):
    """A filter over a stream: a buffer of the last samples, a running mean, a count; none of them begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.randn(6, 4))
        self.register_buffer("last", torch.randn(6, 3))
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("calls", torch.tensor(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        joined = torch.cat([self.last, x], 1)
        filtered = functional.conv1d(joined[None], self.taps[:, None], groups=6)[0]
        self.last.copy_(joined[:, -3:])
        self.mean.mul_(0.9).add_(x.mean(1), alpha=0.1)
        self.calls += 1
        return {"filtered": filtered - self.mean[:, None], "calls": self.calls * 2}


@dataclass(frozen=True)
class Example:
    """How to make a model and its inputs for given sizes; `dynamic` names its free axes with least and most; `typical` sizes
    are where it is compared first; `steps` is above 1 for a model with a state."""

    make: Callable[[], nn.Module]
    inputs: Callable[..., dict[str, Tensor]]
    dynamic: Mapping[str, Mapping[int, Range]]
    typical: dict[str, int]
    steps: int = 1


def transformers_model(kind: str, cls: str, **config: Any) -> nn.Module:
    """A model of transformers' with random weights of a size that shows errors."""
    import transformers

    made = getattr(transformers, cls)._from_config(transformers.AutoConfig.for_model(kind, **{**SMALL, **config}))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim < 2:
                parameter += torch.randn(parameter.shape) * 0.1
    found: nn.Module = made.eval()
    return found


SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
B, L, S = ("batch", 1, 9), ("length", 1, 40), ("side", 5, 33)


def _ids(batch: int, length: int, below: int = 50) -> Tensor:
    return torch.randint(3, below, (batch, length))


def _mask(batch: int, length: int) -> Tensor:
    return torch.arange(length) < torch.randint(1, length + 1, (batch, 1))


TOKENS: dict[str, int] = {"batch": 2, "length": 11}
EXAMPLES: dict[str, Example] = {
    "mlp": Example(
        Mlp,
        lambda batch: {
            "x": torch.randn(batch, 16),
            "flag": torch.rand(batch) > 0.5,
            "kind": torch.randint(0, 7, (batch,), dtype=torch.int32),
        },
        {"x": {0: B}, "flag": {0: B}, "kind": {0: B}},
        {"batch": 3},
    ),
    "convnet": Example(
        ConvNet,
        lambda batch, side: {"image": torch.randn(batch, 3, side, 24)},
        {"image": {0: B, 2: S}},
        {"batch": 2, "side": 16},
    ),
    "text encoder": Example(
        TextEncoder,
        lambda batch, length: {"ids": _ids(batch, length), "mask": _mask(batch, length)},
        {"ids": {0: B, 1: L}, "mask": {0: B, 1: L}},
        TOKENS,
    ),
    "decoder": Example(Decoder, lambda batch, length: {"ids": _ids(batch, length)}, {"ids": {0: B, 1: L}}, TOKENS),
    "bert": Example(
        lambda: transformers_model("bert", "BertModel"),
        lambda batch, length: {"input_ids": _ids(batch, length), "attention_mask": _mask(batch, length).long()},
        {"input_ids": {0: B, 1: L}, "attention_mask": {0: B, 1: L}},
        TOKENS,
    ),
    "llama": Example(
        lambda: transformers_model("llama", "LlamaForCausalLM", num_key_value_heads=2, use_cache=False),
        lambda batch, length: {"input_ids": _ids(batch, length)},
        {"input_ids": {0: B, 1: L}},
        TOKENS,
    ),
    "vit": Example(
        lambda: transformers_model("vit", "ViTModel", image_size=24, patch_size=8),
        lambda batch: {"pixel_values": torch.randn(batch, 3, 24, 24)},
        {"pixel_values": {0: B}},
        {"batch": 2},
    ),
    "gpt2": Example(
        lambda: transformers_model("gpt2", "GPT2LMHeadModel", n_embd=32, n_layer=2, n_head=4, use_cache=False),
        lambda batch, length: {"input_ids": _ids(batch, length)},
        {"input_ids": {0: B, 1: L}},
        TOKENS,
    ),
    "t5 encoder": Example(
        lambda: transformers_model("t5", "T5EncoderModel", d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4),
        lambda batch, length: {"input_ids": _ids(batch, length), "attention_mask": _mask(batch, length).long()},
        {"input_ids": {0: B, 1: L}, "attention_mask": {0: B, 1: L}},
        TOKENS,
    ),
    "resnet": Example(
        lambda: transformers_model("resnet", "ResNetModel", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
        lambda batch: {"pixel_values": torch.randn(batch, 3, 32, 32)},
        {"pixel_values": {0: B}},
        {"batch": 2},
    ),
    "stream": Example(
        Stream, lambda length: {"x": torch.randn(6, length)}, {"x": {1: ("length", 3, 20)}}, {"length": 8}, steps=10
    ),
}
"""`trials` says which of them are tried in full runs only."""
PAIRS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "softmax over another axis": (lambda x, y: (x * y).softmax(0), lambda x, y: (x * y).softmax(1)),
    "operands the other way round": (lambda x, y: x - y * 2, lambda x, y: y * 2 - x),
    "another constant": (lambda x, y: x * 2.0 + y, lambda x, y: x * 3.0 + y),
    "another epsilon": (
        lambda x, y: functional.layer_norm(x * y, (3,), eps=1e-5),
        lambda x, y: functional.layer_norm(x * y, (3,), eps=0.5),
    ),
}
"""Programs that a careless cache takes for one; both sides are tried at two static shapes."""


class Of(nn.Module):
    """A function of x and y as a module."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x, y)


def pair_examples() -> dict[str, Example]:
    """Each side of each pair, at four and at six rows, as an example without dynamic sizes."""
    found = {}
    for name, sides in PAIRS.items():
        for number, side in enumerate(sides):
            for rows in ROWS:
                found[side_name(name, number, rows)] = Example(
                    lambda side=side: Of(side),  # type: ignore[misc]
                    lambda rows=rows: {"x": torch.randn(rows, 3), "y": torch.randn(rows, 3)},
                    {},
                    {},
                )
    return found
