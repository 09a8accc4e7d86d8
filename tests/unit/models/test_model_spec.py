"""read_model against the configurations transformers writes, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from inlay.errors import InlayError, ModelError, UnsupportedError
from inlay.models import DefaultSampling, read_model

PLAIN: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}


def write(folder: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 96}
CONFIGS = [
    ("Llama", {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}),
    ("Llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                   "original_max_position_embeddings": 256, "rope_theta": 5e5}}),
    ("Mistral", {"num_key_value_heads": 2, "sliding_window": 64}),
    ("Qwen2", {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 64}),
    ("Qwen2", {"use_sliding_window": False, "sliding_window": 64}),
    ("Qwen3", {"head_dim": 24}),
    ("Gemma2", {"head_dim": 8}),
    ("Gemma3Text", {"head_dim": 8, "sliding_window": 32}),
    ("Phi3", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    ("GptOss", {"num_local_experts": 2, "num_experts_per_tok": 1}),
    ("GPTNeoX", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), CONFIGS, ids=[f"{name}-{index}" for index, (name, _) in enumerate(CONFIGS)])
def test_facts_agree_with_those_transformers_derives(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    config = getattr(transformers, f"{name}Config")(**SMALL, **settings, architectures=[f"{name}ForCausalLM"])
    config.save_pretrained(tmp_path)
    spec = read_model(tmp_path)
    assert (spec.model_type, spec.architecture) == (config.model_type, f"{name}ForCausalLM")
    assert (spec.vocabulary, spec.hidden, spec.layers, spec.heads) == (96, 32, 6, 4)
    assert spec.kv_heads == getattr(config, "num_key_value_heads", 4)
    assert spec.head_dim == (getattr(config, "head_dim", None) or 8)
    assert spec.intermediate == 48
    assert spec.tied == config.tie_word_embeddings
    assert spec.sliding_window == getattr(config, "sliding_window", None)
    if getattr(config, "layer_types", None):
        assert spec.layer_types == tuple(config.layer_types)
    rope = config.rope_parameters
    main = rope.get("full_attention", rope)
    assert spec.rope_theta == main["rope_theta"]
    assert (spec.rope_scaling is None) == (main["rope_type"] == "default" and main is rope)


@pytest.mark.parametrize("name", ["Qwen2", "Gemma2", "Gemma3Text", "Mistral"])
def test_an_older_config_without_layer_types_gives_the_layers_transformers_gives(tmp_path: Path, name: str) -> None:
    settings: dict[str, Any] = {**SMALL, "sliding_window": 16, "max_position_embeddings": 64, "architectures": ["XForCausalLM"]}
    if name == "Qwen2":
        settings |= {"use_sliding_window": True, "max_window_layers": 4}
    config = getattr(transformers, f"{name}Config")(**settings)
    spec = read_model(write(tmp_path, {"model_type": config.model_type, **settings}))
    theirs = getattr(config, "layer_types", None) or ["sliding_attention"] * 6
    assert spec.layer_types == tuple(theirs)
    assert "sliding_attention" in theirs


def test_a_real_folder_is_read_whole(model_folder: Callable[..., Path]) -> None:
    spec = read_model(model_folder("whole", dtype="bfloat16", bos_token_id=5, eos_token_id=[6, 7], tie_word_embeddings=True))
    assert (spec.dtype, spec.bos_id, spec.eos_ids, spec.tied, spec.context) == ("bfloat16", 5, (6, 7), True, 128)
    assert spec.layer_types == ("full_attention",) * 3


def test_older_names_of_the_same_facts_are_known(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=77, vocab_size=90)
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    spec = read_model(tmp_path)
    assert (spec.hidden, spec.layers, spec.heads, spec.context, spec.vocabulary) == (32, 3, 4, 77, 90)
    assert (spec.kv_heads, spec.head_dim, spec.intermediate, spec.tied, spec.rope_theta) == (4, 8, 0, True, None)


def test_ends_of_generation_config_go_before_those_of_config(tmp_path: Path) -> None:
    config = {**PLAIN, "eos_token_id": 1, "bos_token_id": 3, "pad_token_id": -1}
    assert read_model(write(tmp_path, config)).eos_ids == (1,)
    spec = read_model(write(tmp_path, config, {"eos_token_id": [2, 1], "temperature": 0.6, "top_k": 20, "do_sample": True}))
    assert (spec.eos_ids, spec.bos_id, spec.pad_id) == ((2, 1), 3, None)
    assert spec.sampling == DefaultSampling(do_sample=True, temperature=0.6, top_k=20)


@pytest.mark.parametrize(
    ("settings", "context"),
    [
        ({}, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 8192),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 3000}}, 12000),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 16384),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 102}}, 4096),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}}, 4096),
        ({"rope_scaling": {"type": "longrope", "factor": 32.0, "short_factor": [1.0]}}, 4096),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 4096),
        ({"rope_scaling": None, "rope_theta": 1e6}, 4096),
    ],
)  # fmt: skip
def test_the_context_counts_rope_scaling(tmp_path: Path, settings: dict[str, Any], context: int) -> None:
    assert read_model(write(tmp_path, {**PLAIN, **settings})).context == context


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}, UnsupportedError, "auto_map"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, UnsupportedError, "'gptq'"),
        ({"is_encoder_decoder": True}, UnsupportedError, "is_encoder_decoder"),
        ({"text_config": {}}, UnsupportedError, "text_config"),
        ({"architectures": ["BertForMaskedLM"]}, UnsupportedError, "BertForMaskedLM"),
        ({"architectures": None}, ModelError, "architectures is None"),
        ({"architectures": []}, ModelError, "architectures"),
        ({"max_position_embeddings": None}, ModelError, "max_position_embeddings is absent"),
        ({"vocab_size": "many"}, ModelError, "vocab_size is 'many'"),
        ({"num_hidden_layers": 0}, ModelError, "num_hidden_layers is 0"),
        ({"layer_types": ["full_attention"]}, ModelError, "layer_types"),
        ({"sliding_window": -4}, ModelError, "sliding_window is -4"),
        ({"eos_token_id": "</s>"}, ModelError, "eos_token_id is '</s>'"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(tmp_path: Path, change: dict[str, Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        read_model(write(tmp_path, {**PLAIN, **change}))
    assert isinstance(caught.value, InlayError)
    assert caught.value.hint
    assert str(tmp_path) in caught.value.message


def test_damaged_folders_are_model_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not there"):
        read_model(tmp_path / "missing")
    with pytest.raises(ModelError, match=r"no config\.json"):
        read_model(tmp_path)
    for content in ("{", "[1]", "\xff"):
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
        with pytest.raises(ModelError, match=r"config\.json"):
            read_model(tmp_path)
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        read_model(write(tmp_path, PLAIN, {"temperature": "hot"}))
