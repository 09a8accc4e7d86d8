"""A decoder of the shape of a 125M language model with random weights, run like a prompt: ids in, logits of the last position.

Not the way language models are served (that is `inlay serve`): here it is any module, cut like any other.
"""

from __future__ import annotations

from typing import Any


def build() -> dict[str, Any]:
    """Twelve layers 768 wide, 125 million parameters."""
    return decoder(layers=12, hidden=768, name="decoder")


def build_small() -> dict[str, Any]:
    """The same shape, small enough that what is between its regions shows."""
    return decoder(layers=8, hidden=128, name="decoder-small")


def build_medium() -> dict[str, Any]:
    """Between the two: 30 MiB of weights, nearly all of them in the layers."""
    return decoder(layers=4, hidden=384, vocabulary=1000, name="decoder-medium")


def build_plain() -> dict[str, Any]:
    """As small, feed-forward layers alone: no mask, no positions, nothing that every region would work out anew."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.widen, self.narrow = nn.LayerNorm(128), nn.Linear(128, 512), nn.Linear(512, 128)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden + self.narrow(functional.gelu(self.widen(self.norm(hidden))))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layers = nn.Embedding(32000, 128), nn.ModuleList(Layer() for _ in range(8))
            self.head = nn.Linear(128, 32000, bias=False)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            hidden = self.embed(input_ids)
            for layer in self.layers:
                hidden = layer(hidden)
            return self.head(hidden[:, -1:])

    return {
        "model": Plain().eval(),
        "kwargs": {"input_ids": torch.randint(0, 32000, (1, 16))},
        "dynamic": {"input_ids": {1: ("length", 1, 512)}},
        "points": [{"length": 128}],
        "name": "plain",
    }


def decoder(*, layers: int, hidden: int, name: str, vocabulary: int = 32000) -> dict[str, Any]:
    """A builder's mapping: one row of ids, any length; planned for a prompt of 128."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 192),
        intermediate_size=hidden * 8 // 3,
        vocab_size=vocabulary,
        max_position_embeddings=512,
        use_cache=False,
    )

    class LastLogits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = LlamaForCausalLM(config).eval()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.decoder(input_ids, logits_to_keep=1).logits
            return found

    return {
        "model": LastLogits().eval(),
        "kwargs": {"input_ids": torch.randint(0, config.vocab_size, (1, 16))},
        "dynamic": {"input_ids": {1: ("length", 1, 512)}},
        "points": [{"length": 128}],
        "name": name,
    }
