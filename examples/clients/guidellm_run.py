"""guidellm, unmodified: two streams of synthetic chats. Needs environments/clients-guidellm.txt.

python examples/clients/guidellm_run.py http://127.0.0.1:8000 --tokenizer demo/target
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    """Runs its command; prints one JSON line with what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--tokenizer", required=True, help="folder with the model's tokenizer")
    given = parser.parse_args()
    with urllib.request.urlopen(f"{given.url}/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        words = ["--backend", f"kind=openai_http,target={given.url},model={model}"]
        words += ["--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16", "--profile", "kind=concurrent,streams=2"]
        words += ["--tokenizer", f"kind=huggingface_auto,model={given.tokenizer}", "--constraint"]
        words += ["kind=max_requests,count=12", "--output", f"kind=json,path={path}", "--disable-console-interactive"]
        command = [str(Path(sys.executable).with_name("guidellm")), "run", *words]
        subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        result = json.loads(path.read_text())
    print(json.dumps({"client": "guidellm", "version": version("guidellm"), **figures(result)}))


def figures(result: dict) -> dict:
    """Counts and medians of the only benchmark of a report."""
    metrics = result["benchmarks"][0]["metrics"]

    def median(name: str) -> float:
        return metrics[name]["successful"]["median"]

    totals = metrics["request_totals"]
    return {
        "completed": totals["successful"],
        "failed": totals["errored"],
        "median_ttft_ms": median("time_to_first_token_ms"),
        "median_itl_ms": median("inter_token_latency_ms"),
        "output_tokens_per_second": metrics["output_tokens_per_second"]["successful"]["mean"],
    }


if __name__ == "__main__":
    main()
