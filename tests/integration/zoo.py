"""Random-weight models of many architectures, as Hugging Face folders with the demo tokenizer.

Initializer range 0.2 and untied embeddings, so that continuations hardly repeat and hide no fault.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEMO_TARGET = ROOT / "demo" / "target"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
COMMON: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "head_dim": 16,
}
OWN: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        }
    },
    "qwen3": {},
    "mistral": {"sliding_window": 48},
    "gemma2": {
        "sliding_window": 48,
        "query_pre_attn_scalar": 16,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
    "phi3": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 48},
}
NAMES = tuple(OWN)


def build(name: str, folder: Path) -> Path:
    """Write the model of that architecture into `folder` (float32), unless it is there. Returns the folder."""
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    config = AutoConfig.for_model(name, **{**COMMON, **OWN[name]})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    folder.mkdir(parents=True, exist_ok=True)
    for file in TOKENIZER_FILES:
        shutil.copy(DEMO_TARGET / file, folder / file)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    return folder
