"""Tiny random models, lowered once a session through every installed backend, and the plain forward pass to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inlay.backends import Array, Executable, backend, backend_names
from inlay.backends.environment import environment_of
from inlay.runtime.cache import Cache, read_manifest
from inlay.runtime.load import load_stage_executable
from inlay.runtime.weights import read_weight_map
from inlay.specs.artifact import LowerRequest, ShapeBuckets

COMMON: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.2,
    "tie_word_embeddings": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 6},
    "phi3": {},
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 6, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {
        "sliding_window": 6, "num_local_experts": 4, "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 48},
}  # fmt: skip
QUICK = ("llama", "gemma2", "gpt_oss")
BUCKETS = ShapeBuckets(batches=(1, 2, 3), widths=(1, 5, 7), capacities=(16, 32, 48))
POINTS = tuple(
    {"B": batch, "T": width, "P": capacity, "R": rows}
    for batch, width, capacity, rows in (
        (3, 5, 16, 3), (3, 1, 32, 3), (2, 7, 48, 14), (1, 5, 16, 1), (1, 1, 16, 1), (2, 5, 16, 2), (2, 1, 16, 2)
    )
)  # fmt: skip
"""All sizes that the suite runs stages at."""
SLOW = ("inductor", "executorch")  # long to lower: done where it is asked for, the quick run asks for one architecture
COMPUTING = tuple(name for name in backend_names() if name != "null")


def build_model(architecture: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A tiny random model whose norms and biases are random too, saved as a Hugging Face folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(architecture, **{**COMMON, **ARCHITECTURES[architecture], **changes})
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim < 2:
            parameter.data += torch.randn(parameter.shape) * 0.1
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    return folder


def request_for(name: str) -> LowerRequest:
    """What each backend is asked for: buckets where it knows no dynamic sizes, or points where each costs a compilation."""
    if backend(name).dynamic:
        return LowerRequest()
    return LowerRequest(buckets=BUCKETS) if name in ("contrary", "executorch") else LowerRequest(points=POINTS)


def absent(name: str) -> str:
    """Why this process cannot load the framework; empty where it can."""
    found = backend(name).available()
    if found.available and environment_of(name) is not None:
        return f"{name} lives in an environment of its own: `make conformance-{environment_of(name).name}` tests it there"
    return "" if found.available else found.reason


def need(name: str) -> None:
    """Skip where the framework is not installed."""
    if reason := absent(name):
        pytest.skip(reason)


@dataclass
class World:
    """One cache folder and what has been lowered into it."""

    root: Path
    cache: Cache

    def model(self, architecture: str, *, seed: int = 0, **changes: Any) -> Path:
        """The folder of a tiny model, built on first use."""
        label = "-".join([architecture, str(seed), *(f"{key}{value}" for key, value in changes.items())])
        folder = self.root / "models" / label
        if not (folder / "config.json").exists():
            build_model(architecture, folder, seed=seed, **changes)
        return folder

    def lower(self, folder: Path, *names: str) -> Any:
        """Lower for these backends (by default all installed ones that lower in a moment); a second call only looks."""
        from inlay.runtime.lower import lower_stage

        wanted = names or tuple(name for name in backend_names() if name not in SLOW and not absent(name))
        return lower_stage(folder, wanted=[(name, request_for(name)) for name in wanted], cache=self.cache)

    def load(self, folder: Path, name: str, *, artifact: Path | None = None, **options: str) -> Executable:
        """Lower where needed and load on one thread; `artifact` overrides the folder's own."""
        self.lower(folder)
        lowered = self.lower(folder, name)
        directory = artifact or Path(lowered.artifacts[0].directory)
        weight_map = read_weight_map(Path(lowered.weights))
        assert weight_map is not None
        return load_stage_executable(
            directory, manifest=read_manifest(directory), weight_map=weight_map, backend_name=name, options=options
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("conformance")
    return World(root, Cache(root / "cache"))


@dataclass
class Case:
    """A ragged batch: random tokens, pasts with finite garbage behind them, and what the plain forward pass says."""

    sizes: dict[str, int]
    inputs: list[Array]
    expected: list[Array]


@pytest.fixture(scope="session")
def plain(world: World) -> Callable[..., Case]:
    """Makes a Case from a model folder by Hugging Face's own forward, one sequence at a time."""
    models: dict[Path, Any] = {}

    def make(folder: Path, *, pasts: tuple[int, ...], width: int, capacity: int, rows: str = "last") -> Case:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.cache_utils import DynamicCache

        if folder not in models:
            models[folder] = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager"
            ).eval()
        model, generator = models[folder], np.random.default_rng(hash((pasts, width, capacity)) % 2**32)
        logits, fresh, pools = [], [], []
        prompts = [generator.integers(3, 97, past + width) for past in pasts]
        for prompt in prompts:
            cache = DynamicCache()
            with torch.no_grad():
                logits.append(model(torch.tensor(prompt)[None], past_key_values=cache, use_cache=True).logits[0].numpy())
            fresh.append(
                [layer.keys[0].numpy() for layer in cache.layers] + [layer.values[0].numpy() for layer in cache.layers]
            )
        for piece in range(len(fresh[0])):
            heads, _, dim = fresh[0][piece].shape
            pool = generator.normal(size=(len(pasts), heads, capacity, dim)).astype(np.float32) * 5
            for row, past in enumerate(pasts):
                pool[row, :, :past] = fresh[row][piece][:, :past]
            pools.append(pool)
        picked = np.arange(len(pasts) * width) if rows == "all" else np.arange(len(pasts)) * width + width - 1
        tokens = np.stack([prompt[-width:] for prompt in prompts]).astype(np.int64)
        flat = np.concatenate([item[-width:] for item in logits])[picked]
        new = [np.stack([item[piece][:, -width:] for item in fresh]) for piece in range(len(pools))]
        sizes = {"B": len(pasts), "T": width, "P": capacity, "R": len(picked)}
        return Case(sizes, [tokens, np.array(pasts, np.int64), picked, *pools], [flat, *new])

    return make


def run_case(executable: Executable, case: Case) -> list[Array]:
    """Allocate, write, bind, run and read back, as a runner does."""
    buffers = []
    for port, spec in enumerate((*executable.inputs, *executable.outputs)):
        shape = tuple(case.sizes[size] if isinstance(size, str) else size for size in spec.shape)
        buffers.append(executable.allocate(port, shape))
        executable.bind(port, buffers[-1])
    for buffer, array in zip(buffers, case.inputs, strict=False):
        buffer.write(array)
    executable.run(case.sizes)
    return [buffer.read() for buffer in buffers[len(executable.inputs) :]]


def relative_error(found: list[Array], expected: list[Array]) -> tuple[float, float]:
    """Largest error of the logits by the largest logit, and of all new keys and values by the largest of them."""
    pairs = list(zip(found, expected, strict=True))
    logits = np.abs(pairs[0][0] - pairs[0][1]).max() / np.abs(pairs[0][1]).max()
    kv = max(np.abs(one - two).max() for one, two in pairs[1:]) / max(np.abs(two).max() for _, two in pairs[1:])
    return float(logits), float(kv)


def rewrite_manifest(directory: Path, **changes: Any) -> None:
    """Replace fields of a published manifest."""
    path = directory / "manifest.json"
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **changes}))
