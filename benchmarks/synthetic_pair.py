"""A target and a draft with a chosen acceptance, for measuring speculation: *synthetic pair, acceptance by construction*.

The target is a random-weight Llama whose first layers write much into the residual stream and whose later ones write little, by
a factor; the draft is its own first layers with the same embedding, norm and head. The smaller the factor, the more often the
two agree. Sizes: 12 layers of 768 (96 million parameters) and the first 2 of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from measuring import ROOT

DEMO = ROOT / "demo" / "target"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
CONFIG: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 768,
    "intermediate_size": 2560,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
    "initializer_range": 0.05,
}
DRAFT_LAYERS = 2
HEAD_SCALE = 1.6
"""Makes the target's distribution as sharp as a small trained model's: about 5 nats."""


def build_pair(folder: Path, *, factor: float) -> tuple[Path, Path]:
    """Write both model folders; the later layers' outputs are scaled by `factor`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    target = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **CONFIG)).float().eval()
    with torch.no_grad():
        target.lm_head.weight.mul_(HEAD_SCALE)
        for layer in target.model.layers[DRAFT_LAYERS:]:
            layer.self_attn.o_proj.weight.mul_(factor)
            layer.mlp.down_proj.weight.mul_(factor)
    paths = folder / "target", folder / "draft"
    draft = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **{**CONFIG, "num_hidden_layers": DRAFT_LAYERS})
    ).float()
    kept = {name: value for name, value in target.state_dict().items() if name in draft.state_dict()}
    draft.load_state_dict(kept)
    for model, path in zip((target, draft), paths, strict=True):
        model.generation_config.do_sample = True
        model.save_pretrained(path)
        for name in TOKENIZER_FILES:
            shutil.copy(DEMO / name, path / name)
        (path / "pair.json").write_text(json.dumps({"factor": factor, "draft_layers": DRAFT_LAYERS}))
    return paths


def measure_pair(target: Path, draft: Path, *, tokens: int = 48, streams: int = 16) -> dict[str, float]:
    """By torch, teacher-forced on the target's own samples: entropy in nats, and how often the draft's choice under the
    coupled rule and the greedy one equal the target's."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    generator = torch.Generator().manual_seed(3)
    big = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    small = AutoModelForCausalLM.from_pretrained(draft, dtype=torch.float32).eval()
    text = torch.randint(3, CONFIG["vocab_size"], (streams, 8), generator=generator)
    with torch.no_grad():
        torch.manual_seed(5)
        text = big.generate(text, do_sample=True, max_new_tokens=tokens, min_new_tokens=tokens, top_k=0, pad_token_id=2)
        p, q = big(text).logits[:, 8:-1].double(), small(text).logits[:, 8:-1].double()
    mass = torch.softmax(p, -1)
    noise = torch.from_numpy(np.random.default_rng(5).gumbel(size=p.shape))
    distinct = [len({*zip(*(row[8 + i :].tolist() for i in range(4)), strict=False)}) / (tokens - 3) for row in text]
    return {
        "entropy": float(-(mass * torch.log(mass)).sum(-1).mean()),
        "coupled": float(((p + noise).argmax(-1) == (q + noise).argmax(-1)).double().mean()),
        "greedy": float((p.argmax(-1) == q.argmax(-1)).double().mean()),
        "distinct_4_grams": sum(distinct) / len(distinct),
    }


if __name__ == "__main__":
    import sys
    import tempfile

    for factor in map(float, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            print(factor, measure_pair(*build_pair(Path(folder), factor=factor)))
