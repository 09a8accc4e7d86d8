"""A torch door: a tiny language model as a folder, with calls of its stage program and their truth by the plain forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from inlay.backends import Array
from inlay.models.torch import load_stage
from inlay.runtime.conformance.models import SMALL, transformers_model
from inlay.runtime.conformance.trials import StageSubject, Trial
from inlay.runtime.conformance.units import save_values

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "extend of llama": ("llama", {"num_key_value_heads": 2, "head_dim": 8}),
    "extend of gemma2": (
        "gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8},
    ),
}  # fmt: skip
CLASSES = {"llama": "LlamaForCausalLM", "gemma2": "Gemma2ForCausalLM"}
CALLS = (((0, 0), 7, 16), ((9, 3), 1, 16), ((4, 11), 5, 32))
"""Pasts of the rows, new tokens, capacity: a prompt, a step, a few tokens to be judged."""


def make_stage(name: str, *, folder: Path) -> StageSubject:
    """Save the model of this name and write its calls."""
    kind, config = ARCHITECTURES[name]
    torch.manual_seed(sum(name.encode()))
    model = transformers_model(kind, CLASSES[kind], tie_word_embeddings=False, **config)
    home = folder / name.replace(" ", "-")
    model.generation_config.do_sample = False
    model.save_pretrained(home)
    inputs, outputs = (tuple(port.name for port in ports) for ports in load_stage(home).shape.ports())
    trials = []
    for number, (pasts, width, capacity) in enumerate(CALLS):
        sizes, values = _call(model, pasts, width, capacity)
        path = folder / f"{home.name}-{number}.npz"
        names = [*(f"in {item}" for item in inputs), *(f"out {item}" for item in outputs)]
        save_values(path, dict(zip(names, values, strict=True)))
        trials.append(Trial(sizes=sizes, values=str(path)))
    return StageSubject(name=name, folder=str(home), trials=tuple(trials))


def _call(model: Any, pasts: tuple[int, ...], width: int, capacity: int) -> tuple[dict[str, int], list[Array]]:
    """Inputs and outputs of one call in the order of the ports: rows of unlike pasts, with numbers behind them that must not
    matter."""
    from transformers.cache_utils import DynamicCache

    random = np.random.default_rng(width * 100 + capacity)
    prompts = [random.integers(3, SMALL["vocab_size"], past + width) for past in pasts]
    logits, kept = [], []
    for prompt in prompts:
        cache = DynamicCache()
        with torch.no_grad():
            logits.append(model(torch.tensor(prompt)[None], past_key_values=cache, use_cache=True).logits[0].numpy())
        kept.append([layer.keys[0].numpy() for layer in cache.layers] + [layer.values[0].numpy() for layer in cache.layers])
    pools = []
    for piece in range(len(kept[0])):
        heads, _, dim = kept[0][piece].shape
        pool = (random.standard_normal((len(pasts), heads, capacity, dim)) * 5).astype(np.float32)
        for row, past in enumerate(pasts):
            pool[row, :, :past] = kept[row][piece][:, :past]
        pools.append(pool)
    rows = np.arange(len(pasts)) * width + width - 1
    tokens = np.stack([prompt[-width:] for prompt in prompts]).astype(np.int64)
    last = np.concatenate([item[-width:] for item in logits])[rows]
    new = [np.stack([item[piece][:, -width:] for item in kept]) for piece in range(len(pools))]
    sizes = {"B": len(pasts), "T": width, "P": capacity, "R": len(rows)}
    return sizes, [tokens, np.array(pasts, np.int64), rows, *pools, last, *new]
