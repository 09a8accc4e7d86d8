"""One engine of others in a process of its own, pinned to as many cores as it has threads. Started by peers.py.

    python benchmarks/rivals.py KIND MODEL --cores 0 1     (in the environment of environments/peers.txt)

KIND is hugging-face (a model folder), llama.cpp or genai (a GGUF file). It speaks JSON lines on its pipes; times are taken
inside this process, so no pipe is in them. {"prompts": [[...]], "new_tokens": n} is answered by {"first", "last"}: seconds to
the first token (median of the streams) and to the last of all. {"probe": [[...]]} is answered by [token, log-probability] of
the greedy next token of each prefix.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

Prompts = list[list[int]]
STREAMS = 16
PACKAGES = {"hugging-face": "transformers", "llama.cpp": "xllamacpp", "genai": "openvino-genai"}


class Engine(Protocol):
    """One loaded engine."""

    def turn(self, prompts: Prompts, new_tokens: int) -> list[float]:
        """All prompts at once, greedy, exactly so many new tokens each; when each stream's first token was there."""

    def probe(self, prefix: list[int]) -> tuple[int, float] | None:
        """The greedy next token and its log-probability; None where it does not tell."""


class HuggingFace:
    """`generate` in float32 with transformers' own choice of attention; ragged prompts are padded on the left, as it asks."""

    def __init__(self, model: str, *, threads: int, context: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.do_sample = False

    def turn(self, prompts: Prompts, new_tokens: int) -> list[float]:
        """See Engine."""
        from transformers import StoppingCriteriaList

        torch, width, seen = self._torch, max(map(len, prompts)), []

        def note(ids: Any, scores: Any, **_: Any) -> Any:
            seen.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool)

        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([note]),
            )
        return [seen[0]] * len(prompts)

    def probe(self, prefix: list[int]) -> tuple[int, float] | None:
        """See Engine."""
        with self._torch.inference_mode():
            logits = self._model(self._torch.tensor([prefix])).logits[0, -1].log_softmax(-1)
        token = int(logits.argmax())
        return token, float(logits[token])


class LlamaCpp:
    """llama.cpp's own server loop through the xllamacpp wheel, continuous batching on, no prompt cache."""

    def __init__(self, model: str, *, threads: int, context: int) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = model
        parameters.n_parallel, parameters.n_ctx = STREAMS, STREAMS * context
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.cache_ram_mib = 0
        self._server = xllamacpp.Server(parameters)

    def turn(self, prompts: Prompts, new_tokens: int) -> list[float]:
        """See Engine. A thread for each request, as its HTTP server has."""
        firsts, counts = [0.0] * len(prompts), [0] * len(prompts)

        def ask(index: int) -> None:
            def take(answer: dict[str, Any]) -> bool:
                firsts[index] = firsts[index] or time.perf_counter()
                counts[index] = answer.get("usage", {}).get("completion_tokens", counts[index])
                return False

            self._server.handle_completions(self._request(prompts[index], new_tokens), take)

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if set(counts) != {new_tokens}:
            raise RuntimeError(f"llama.cpp gave {counts} tokens, expected {new_tokens} each")
        return firsts

    def probe(self, prefix: list[int]) -> tuple[int, float] | None:
        """See Engine."""
        seen: list[Any] = []

        def take(answer: dict[str, Any]) -> bool:
            seen.extend((answer["choices"][0].get("logprobs") or {}).get("content", []))
            return False

        self._server.handle_completions(self._request(prefix, 1) | {"n_probs": 1, "stream": False}, take)
        # It says nothing of a token that ends within a character.
        return (int(seen[0]["id"]), float(seen[0]["logprob"])) if seen else None

    def _request(self, prompt: list[int], new_tokens: int) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "n_predict": new_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "cache_prompt": False,
        }


class GenAi:
    """OpenVINO GenAI's continuous batching over paged attention, arithmetic and KV in float32, no prefix cache."""

    def __init__(self, model: str, *, threads: int, context: int) -> None:
        import openvino
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs, scheduler.enable_prefix_caching = 2, STREAMS, False
        self._genai, self._tensor, self._number = openvino_genai, openvino.Tensor, 0
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)

    def turn(self, prompts: Prompts, new_tokens: int) -> list[float]:
        """See Engine."""
        handles = [self._add(prompt, new_tokens) for prompt in prompts]
        firsts = [0.0] * len(prompts)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter()
            firsts = [at or (now if handle.can_read() else 0.0) for at, handle in zip(firsts, handles, strict=True)]
        counts = {len(handle.read_all()[0].generated_ids) for handle in handles}
        if counts != {new_tokens}:
            raise RuntimeError(f"GenAI gave {sorted(counts)} tokens, expected {new_tokens} each")
        return firsts

    def probe(self, prefix: list[int]) -> tuple[int, float] | None:
        """See Engine."""
        handle = self._add(prefix, 1)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        output = handle.read_all()[0]
        return int(output.generated_ids[0]), float(output.generated_log_probs[0])

    def _add(self, prompt: list[int], new_tokens: int) -> Any:
        import numpy as np

        wanted = self._genai.GenerationConfig()
        wanted.max_new_tokens, wanted.do_sample, wanted.ignore_eos, wanted.logprobs = new_tokens, False, True, 1
        self._number += 1
        return self._pipeline.add_request(self._number, self._tensor(np.array([prompt], np.int64)), wanted)


ENGINES: dict[str, type[Any]] = {"hugging-face": HuggingFace, "llama.cpp": LlamaCpp, "genai": GenAi}


def main() -> None:
    """Load, answer one line for each line, end with stdin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=ENGINES)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    parser.add_argument("--context", type=int, default=1024)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, set(arguments.cores))
    os.environ["OMP_NUM_THREADS"] = str(len(arguments.cores))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    engine: Engine = ENGINES[arguments.kind](str(arguments.model), threads=len(arguments.cores), context=arguments.context)
    package = PACKAGES[arguments.kind]

    def answer(found: Any) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    answer({"package": package, "version": metadata.version(package)})
    for line in sys.stdin:
        asked = json.loads(line)
        if "probe" in asked:
            answer([engine.probe(prefix) for prefix in asked["probe"]])
            continue
        begin = time.perf_counter()
        firsts = engine.turn(asked["prompts"], asked["new_tokens"])
        last = time.perf_counter() - begin
        answer({"first": statistics.median(first - begin for first in firsts), "last": last})


if __name__ == "__main__":
    main()
