"""Export of a checkpoint as a Hugging Face folder in bfloat16."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from checkpoint import read_checkpoint
from models import build_model
from safetensors.torch import save_file
from tokenizers import Tokenizer
from vocabulary import save_tokenizer


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def export_model(stage: str, state: Path, tokenizer: Tokenizer, folder: Path) -> bool:
    """Write the stage's newest weights, or untrained ones; say whether they were trained."""
    model = build_model(stage, tokenizer)
    stored = read_checkpoint(state, stage)
    if stored:
        model.load_state_dict(stored["model"])
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder)
    config = model.config
    content = json.loads(config.to_json_string())
    content.update(
        architectures=["LlamaForCausalLM"], dtype="bfloat16", torch_dtype="bfloat16", rope_theta=10000.0, rope_scaling=None
    )
    _write_json(folder / "config.json", content)
    _write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
            "do_sample": True,
            "temperature": 0.8,
        },
    )
    weights = {name: parameter.detach().to(torch.bfloat16).contiguous() for name, parameter in model.named_parameters()}
    unfinished = folder / "model.safetensors.unfinished"
    save_file(weights, unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)
    os.replace(unfinished, folder / "model.safetensors")
    return stored is not None
