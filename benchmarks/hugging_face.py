"""The rival: Hugging Face `generate` in a process of its own, pinned to as many cores as it has threads.

    python benchmarks/hugging_face.py MODEL --cores 0 1     (started by serving.py; speaks JSON lines on its pipes)

Times are taken inside this process, so no pipe is in them: what a caller of `generate` in the same program would see.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Load, answer one line for each line, end with stdin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, set(arguments.cores))
    os.environ["OMP_NUM_THREADS"] = str(len(arguments.cores))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    model = load(arguments.model, threads=len(arguments.cores))
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(generate(model, asked["prompts"], asked["new_tokens"])) + "\n")
        answers.flush()


def load(folder: Path, *, threads: int) -> Any:
    """The model in float32 with transformers' own choice of attention; end tokens end nothing."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.do_sample = False
    return model


def generate(model: Any, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    """Greedy continuation of prompts of equal length, as one batch: tokens, seconds to the first and to the last."""
    import torch
    from transformers import StoppingCriteriaList

    seen: list[float] = []

    def note(ids: Any, scores: Any, **_: Any) -> Any:
        seen.append(time.perf_counter())
        return torch.zeros(ids.shape[0], dtype=torch.bool)

    ids = torch.tensor(prompts)
    with torch.inference_mode():
        begin = time.perf_counter()
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([note]),
        )
        end = time.perf_counter()
    tokens = found[:, ids.shape[1] :].tolist()
    return {"first": seen[0] - begin, "last": end - begin, "tokens": tokens}


if __name__ == "__main__":
    main()
