"""A text encoder of the shape of MiniLM-L6 with random weights, as `inlay compile` takes it.

A builder returns a mapping: the model, an example call, which sizes are dynamic (name, least, most), and the points (sizes)
that it will be used at.
"""

from __future__ import annotations

from typing import Any


def build() -> dict[str, Any]:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522)
    model = BertModel(config)
    ids = torch.randint(0, config.vocab_size, (2, 16))
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, 9:] = 0
    return {
        "model": model,
        "kwargs": {"input_ids": ids, "attention_mask": mask},
        "dynamic": {
            "input_ids": {0: ("batch", 1, 32), 1: ("length", 1, 512)},
            "attention_mask": {0: "batch", 1: "length"},
        },
        "points": [{"batch": 1, "length": 128}, {"batch": 8, "length": 128}],
        "name": "encoder",
    }
