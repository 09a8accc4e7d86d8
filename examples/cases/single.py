"""A text encoder with random weights: every block of it is fastest on the same framework, so one device takes all of it."""

from __future__ import annotations

from typing import Any


def build() -> dict[str, Any]:
    """Six layers 384 wide, as of small sentence encoders; planned for one text and for eight."""
    return encoder(layers=6, hidden=384, points=[{"batch": 1, "length": 128}, {"batch": 8, "length": 128}], name="single")


def build_small() -> dict[str, Any]:
    """The same, to be compiled and judged in seconds."""
    return encoder(layers=2, hidden=64, points=[{"batch": 2, "length": 32}], name="single-small")


def encoder(*, layers: int, hidden: int, points: list[dict[str, int]], name: str) -> dict[str, Any]:
    """A builder's mapping."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        vocab_size=8192,
    )
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, 9:] = 0
    return {
        "model": BertModel(config, add_pooling_layer=False).eval(),
        "kwargs": {"input_ids": torch.randint(0, config.vocab_size, (2, 16)), "attention_mask": mask},
        "dynamic": {
            "input_ids": {0: ("batch", 1, 16), 1: ("length", 1, 256)},
            "attention_mask": {0: "batch", 1: "length"},
        },
        "points": points,
        "name": name,
    }
