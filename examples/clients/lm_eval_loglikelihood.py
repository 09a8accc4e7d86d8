"""lm-eval, unmodified: a multiple choice by log-likelihood, prompts as token ids. Needs environments/clients-lm-eval.txt.

    python examples/clients/lm_eval_loglikelihood.py http://127.0.0.1:8000 --tokenizer demo/target

Completions with `echo`, `logprobs` 1 and `max_tokens` 1. With --check the model itself is asked through transformers, and
every log-likelihood must agree within 0.01.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

QUESTIONS = (
    ("import os\n\ndef read(path):\n    with open(path)", [" as f:\n        return f.read()", " banana banana banana"], 0),
    ("class Node:\n    def __init__(", ["7, 7, 7", "self, value):\n        self.value = value"], 1),
    ("for i in", [" range(10):\n        print(i)", " ) ) ) else lambda"], 0),
    ("try:\n    import json\nexcept", [" ImportError:\n    json = None", " 12 34 56"], 0),
)
TASK = """
task: python_endings
dataset_path: json
dataset_kwargs:
  data_files: {file}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
"""


def main() -> None:
    """Evaluates; prints one JSON line with the accuracy and how far log-likelihoods are from the model's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--tokenizer", required=True, help="folder with the model's tokenizer (and weights, for --check)")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    with urllib.request.urlopen(f"{given.url}/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    options = f"model={model},base_url={given.url}/v1/completions,tokenizer_backend=huggingface,tokenizer={given.tokenizer}"
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"question": q, "choices": c, "label": i}) for q, c, i in QUESTIONS]
        (Path(folder) / "questions.jsonl").write_text("\n".join(lines) + "\n")
        (Path(folder) / "python_endings.yaml").write_text(TASK.format(file=Path(folder) / "questions.jsonl"))
        result = lm_eval.simple_evaluate(
            model="local-completions",
            model_args=options + ",num_concurrent=2,add_bos_token=True",
            tasks=["python_endings"],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            log_samples=True,
        )
    samples = result["samples"]["python_endings"]
    found: dict[str, Any] = {
        "client": "lm-eval",
        "version": version("lm_eval"),
        "questions": len(samples),
        "accuracy": result["results"]["python_endings"]["acc,none"],
        "loglikelihoods": [[round(float(answer[0][0]), 4) for answer in sample["resps"]] for sample in samples],
    }
    if given.check:
        found["largest_difference"] = check(given.tokenizer, samples)
    print(json.dumps(found))


def check(folder: str, samples: list[dict[str, Any]]) -> float:
    """The largest difference to the log-likelihoods of transformers. Raises SystemExit above 0.01."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    worst = 0.0
    for sample in samples:
        for argument, answer in zip(sample["arguments"], sample["resps"], strict=True):
            context, ending = argument if isinstance(argument, (list, tuple)) else argument.values()
            before, whole = tokenizer(context).input_ids, tokenizer(context + ending).input_ids
            with torch.no_grad():
                table = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            own = sum(table[i - 1, whole[i]].item() for i in range(len(before), len(whole)))
            worst = max(worst, abs(own - float(answer[0][0])))
    if worst > 0.01:
        raise SystemExit(f"error: a log-likelihood differs by {worst:.4f} from transformers', expected at most 0.01")
    return worst


if __name__ == "__main__":
    main()
