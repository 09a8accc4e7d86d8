"""What Hugging Face says: greedy continuations in float32 with the margin of every choice, and teacher-forced logits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Truth:
    """One prompt's greedy continuation, and at each step how far the best logit was above the second."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    margins: tuple[float, ...]

    @property
    def distinct(self) -> float:
        return len(set(self.tokens)) / len(self.tokens)


def load(folder: Path) -> Any:
    """The model as Hugging Face runs it, float32, eager attention."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def prompts(count: int, *, vocabulary: int, seed: int = 1, shortest: int = 3, longest: int = 400) -> list[tuple[int, ...]]:
    """Ragged random prompts, lengths spread over the whole range, both ends included; ids from 8 on."""
    rng = random.Random(seed)
    lengths = [shortest, longest, *(round(shortest * (longest / shortest) ** rng.random()) for _ in range(count - 2))]
    return [tuple(rng.randrange(8, vocabulary) for _ in range(length)) for length in lengths]


def continuations(model: Any, given: list[tuple[int, ...]], *, new_tokens: int) -> list[Truth]:
    """Greedy `generate`, one prompt at a time, end tokens ignored."""
    import torch

    found = []
    for prompt in given:
        with torch.no_grad():
            output = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
            )
        steps = torch.stack([item[0] for item in output.logits])
        best = steps.topk(2, dim=-1).values
        found.append(
            Truth(prompt, tuple(output.sequences[0, len(prompt) :].tolist()), tuple((best[:, 0] - best[:, 1]).tolist()))
        )
    return found


def forced_logits(model: Any, ids: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """float32 [len(ids), vocabulary]: the logits after each token."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()
