"""aiperf, unmodified: streamed chats of synthetic prompts. Needs environments/clients-aiperf.txt.

    python examples/clients/aiperf_profile.py http://127.0.0.1:8000 --tokenizer demo/target

It finds a tokenizer on disk only while Hugging Face's offline variables are not set.
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
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    with tempfile.TemporaryDirectory() as folder:
        words = ["--model", model, "--url", given.url, "--endpoint-type", "chat", "--streaming", "--ui-type", "none"]
        words += ["--tokenizer", str(Path(given.tokenizer).resolve()), "--synthetic-input-tokens-mean", "64"]
        words += ["--output-tokens-mean", "16", "--extra-inputs", "ignore_eos:true", "--use-server-token-count"]
        words += ["--concurrency", "2", "--request-count", "12", "--artifact-dir", folder]
        command = [str(Path(sys.executable).with_name("aiperf")), "profile", *words]
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
        result = json.loads(next(Path(folder).rglob("profile_export_aiperf.json")).read_text())
    print(json.dumps({"client": "aiperf", "version": version("aiperf"), **figures(result)}))


def figures(result: dict) -> dict:
    """Counts and medians of a report."""
    return {
        "completed": result["request_count"]["avg"],
        "failed": (result.get("error_request_count") or {"avg": 0})["avg"],
        "median_ttft_ms": result["time_to_first_token"]["p50"],
        "median_itl_ms": result["inter_token_latency"]["p50"],
        "output_tokens_per_second": result["output_token_throughput"]["avg"],
    }


if __name__ == "__main__":
    main()
