"""vLLM's benchmark client (`vllm bench serve`), unmodified, with random token prompts. Needs environments/clients-vllm.txt.

    python examples/clients/vllm_bench_serve.py http://127.0.0.1:8000 --tokenizer demo/target

Its module is called directly: the `vllm` command looks for a device first, and there need be none here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import urllib.request
from importlib.metadata import version
from pathlib import Path

from vllm.benchmarks.serve import add_cli_args
from vllm.benchmarks.serve import main as run_benchmark
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """Runs it; prints one JSON line with what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--tokenizer", required=True, help="folder with the model's tokenizer")
    given = parser.parse_args()
    with urllib.request.urlopen(f"{given.url}/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    theirs = FlexibleArgumentParser()
    add_cli_args(theirs)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--backend", "openai", "--base-url", given.url, "--model", model, "--tokenizer", given.tokenizer]
        words += ["--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "32", "--num-prompts", "16"]
        words += ["--max-concurrency", "4", "--ignore-eos", "--goodput", "ttft:2000", "tpot:200", "--percentile-metrics"]
        words += ["ttft,tpot,itl,e2el", "--save-result", "--result-dir", folder, "--result-filename", "found.json"]
        run_benchmark(theirs.parse_args(words))
        result = json.loads((Path(folder) / "found.json").read_text())
    names = ("completed", "failed", "total_input_tokens", "total_output_tokens", "output_throughput", "request_goodput")
    found = {name: result.get(name) for name in (*names, "median_ttft_ms", "median_tpot_ms", "median_itl_ms")}
    print(json.dumps({"client": "vllm bench serve", "version": version("vllm"), **found}))


if __name__ == "__main__":
    main()
