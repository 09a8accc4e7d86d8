"""Facts of models: parameters against the cards, KV and experts against published figures, configs of every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inlay.errors import InputError, ModelError, UnsupportedError
from inlay.models.facts import (
    Attention,
    Experts,
    LatentAttention,
    LinearAttention,
    active_parameters,
    catalogue_entries,
    experts_hit,
    facts_of_config,
    formats_of,
    kv_bytes,
    kv_bytes_per_token,
    model_names,
    one_pass,
    parameters,
    read_facts,
    state_bytes,
    weight_bytes,
)

# Kilobytes of KV a token leaves in bf16 (planning facts worked out from the published configs).
KV_KILOBYTES = {
    "gpt-oss-120b": 73.7,
    "Llama-3.1-8B": 131,
    "Llama-3.1-70B": 328,
    "Qwen3-32B": 262,
    "Qwen3-30B-A3B": 98,
    "DeepSeek-R1": 70.3,
    "Kimi-K2.5": 70.3,
    "MiniMax-M2.5": 254,
    "Qwen3.5-397B-A17B": 30.7,
}


@pytest.mark.parametrize("name", model_names())
def test_parameters_agree_with_the_models_card(name: str) -> None:
    stated_total, stated_active = catalogue_entries()[name].stated
    facts = read_facts(name)
    assert parameters(facts) / 1e9 == pytest.approx(stated_total, rel=0.015)
    # Cards count embeddings and round in their own ways: a dense model's card has one figure for both.
    assert active_parameters(facts) / 1e9 == pytest.approx(stated_active, rel=0.09)


@pytest.mark.parametrize("name", KV_KILOBYTES)
def test_kv_of_a_token_is_what_is_published(name: str) -> None:
    facts = read_facts(name)
    assert kv_bytes_per_token(facts, facts.native) / 1e3 == pytest.approx(KV_KILOBYTES[name], rel=0.005)


def test_layers_with_a_window_keep_no_more_than_it() -> None:
    facts = read_facts("gpt-oss-120b")
    assert kv_bytes_per_token(facts, facts.native, growing=True) == 36_864
    assert kv_bytes(facts, facts.native, 128) == 128 * 73_728
    assert kv_bytes(facts, facts.native, 8192) == 8192 * 36_864 + 128 * 36_864
    assert kv_bytes(facts, facts.native, 8192) / 1e9 == pytest.approx(0.31, abs=0.005)


def test_the_checkpoint_of_gpt_oss_weighs_what_its_card_says() -> None:
    facts = read_facts("openai/gpt-oss-120b")
    assert weight_bytes(facts, facts.native) / 1e9 == pytest.approx(65.2, abs=0.1)  # 60.8 GiB on its card
    assert weight_bytes(facts, formats_of(facts, "bf16")) < 1.07 * 2 * 116.8e9


@pytest.mark.parametrize(("tokens", "hit"), [(1, 4.0), (4, 15.3), (8, 28.7), (16, 51.0)])
def test_wider_verification_hits_more_experts(tokens: int, hit: float) -> None:
    block = next(group.feed_forward for group in read_facts("gpt-oss-120b").groups)
    assert isinstance(block, Experts)
    assert experts_hit(block, tokens) == pytest.approx(hit, abs=0.05)


def test_a_verify_pass_reads_more_experts_than_decode_but_the_same_attention() -> None:
    facts = read_facts("gpt-oss-120b")
    decode, verify = (one_pass(facts, facts.native, batch=1, new=width, context=8192) for width in (1, 8))
    assert verify.expert_weights / decode.expert_weights == pytest.approx(28.7 / 4.0, rel=0.01)
    assert (verify.attention_weights, verify.kv_read) == (decode.attention_weights, decode.kv_read)
    assert verify.projection_flops == 8 * decode.projection_flops
    dense = read_facts("Llama-3.1-8B")
    reads = [one_pass(dense, dense.native, batch=1, new=width, context=8192).bytes for width in (1, 8)]
    assert reads[1] - reads[0] == 7 * kv_bytes_per_token(dense, dense.native)


def test_decode_computes_two_operations_for_each_active_parameter_and_prefill_attends_causally() -> None:
    facts = read_facts("Llama-3.1-70B")
    one = one_pass(facts, facts.native, batch=1, new=1, context=0)
    assert one.flops - one.score_flops == 2 * active_parameters(facts)
    prompt = one_pass(facts, facts.native, batch=1, new=1000, context=0, logit_rows=1)
    assert prompt.score_flops == 80 * 4 * 64 * 128 * (1000 * 1001 / 2)
    chunks = [one_pass(facts, facts.native, batch=1, new=250, context=at, logit_rows=0) for at in (0, 250, 500, 750)]
    assert sum(chunk.score_flops for chunk in chunks) == prompt.score_flops


def test_chunks_of_a_prompt_add_up_under_a_window_too() -> None:
    facts = read_facts("gpt-oss-20b")
    whole = one_pass(facts, facts.native, batch=1, new=400, context=0, logit_rows=0).score_flops
    parts = [one_pass(facts, facts.native, batch=1, new=50, context=at, logit_rows=0).score_flops for at in range(0, 400, 50)]
    assert sum(parts) == whole


def test_latent_attention_takes_the_cheaper_of_its_two_ways() -> None:
    facts = read_facts("DeepSeek-R1")
    decode = one_pass(facts, facts.native, batch=1, new=1, context=4096)
    assert decode.score_flops == 61 * 2 * 128 * (2 * 512 + 64) * 4097
    prompt = one_pass(facts, facts.native, batch=1, new=4096, context=0)
    assert prompt.score_flops == 61 * 2 * 128 * (128 + 64 + 128) * (4096 * 4097 / 2)


def test_the_state_of_a_hybrid_model_does_not_grow_in_its_linear_layers() -> None:
    facts = read_facts("Qwen3.5-397B-A17B")
    kinds = {type(group.attention): group.count for group in facts.groups}
    assert kinds == {Attention: 15, LinearAttention: 45}
    fixed = sum(group.count * state_bytes(group.attention, facts.native) for group in facts.groups)
    assert fixed == kv_bytes(facts, facts.native, 0) > 45 * 64 * 128 * 128 * 4
    assert kv_bytes(facts, facts.native, 1000) - fixed == 1000 * kv_bytes_per_token(facts, facts.native)


def test_four_bits_leave_the_attention_of_a_mixture_alone_and_take_all_of_a_dense_model() -> None:
    mixture, dense = (formats_of(read_facts(name), "fp4") for name in ("DeepSeek-R1", "Llama-3.1-70B"))
    assert (mixture.attention, mixture.experts, mixture.head) == (1.0, 4.5 / 8, 2.0)
    assert (dense.attention, dense.feed_forward, dense.head) == (4.5 / 8, 4.5 / 8, 2.0)
    assert formats_of(read_facts("gpt-oss-120b"), "fp8").experts == 4.25 / 8
    with pytest.raises(InputError, match="precision is 'fp3', expected native or one of"):
        formats_of(read_facts("Qwen3-8B"), "fp3")
    with pytest.raises(InputError, match="precision is 'two'"):
        formats_of(read_facts("Qwen3-8B"), "fp8", kv="two")


SMALL: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 96}
MIXTURES = [
    ("Mixtral", {"intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 2}),
    ("Qwen3Moe", {"moe_intermediate_size": 24, "num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [1]}),
    ("GptOss", {"intermediate_size": 48, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}),
    ("DeepseekV3", {"intermediate_size": 80, "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 2,
                    "first_k_dense_replace": 2, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 16, "v_head_dim": 16, "n_group": 1, "topk_group": 1}),
    ("Gemma2", {"intermediate_size": 96, "head_dim": 16, "num_key_value_heads": 2}),
    ("Llama", {"intermediate_size": 96, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    ("GPTNeoX", {"intermediate_size": 96}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "settings"), MIXTURES, ids=[family for family, _ in MIXTURES])
def test_a_config_gives_the_parameters_that_transformers_builds(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(**SMALL, **settings)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    matrices = {name: weight.numel() for name, weight in model.named_parameters() if weight.dim() > 1 and "bias" not in name}
    if model.config.tie_word_embeddings:
        matrices = {name: count for name, count in matrices.items() if "lm_head" not in name}
    assert parameters(read_facts(tmp_path)) == sum(matrices.values())


@pytest.mark.parametrize("which", ["draft", "target"])
@pytest.mark.parametrize(("batch", "new", "past"), [(1, 1, 64), (3, 1, 256), (2, 5, 128), (1, 128, 128)])
def test_products_are_those_of_the_captured_graph(which: str, batch: int, new: int, past: int) -> None:
    pytest.importorskip("torch")
    from inlay.graph.capture import capture_stage
    from inlay.graph.flops import flops_of
    from inlay.graph.summary import summarize
    from inlay.models.torch import load_stage

    folder = Path(__file__).parents[3] / "demo" / which
    program = summarize(capture_stage(load_stage(folder)), which)
    facts = read_facts(folder)
    sizes = {"B": batch, "T": new, "P": past, "R": batch}
    linear, scores = (
        flops_of(program, [node.name for node in program.nodes if node.operator.startswith(prefix)], sizes)
        for prefix in ("aten.linear", "aten.bmm")
    )
    counted = one_pass(facts, facts.native, batch=batch, new=new, context=past, logit_rows=batch)
    assert counted.projection_flops + counted.dense_flops + counted.head_flops == linear
    # The captured program computes masked pairs too: all of T x (P + T).
    (group,) = facts.groups
    assert isinstance(group.attention, Attention)
    every = 4 * group.attention.heads * group.attention.head_dim * batch * new * (past + new)
    assert group.count * every == scores
    assert counted.score_flops == scores - group.count * every * (new - 1) / 2 / (past + new)


def test_a_text_part_of_a_larger_model_and_kinds_of_attention_are_read() -> None:
    entry = catalogue_entries()["Kimi-K2.5"].config
    nested = facts_of_config({"text_config": entry, "vision_config": {}}, name="k", source="config.json")
    assert parameters(nested) == parameters(read_facts("Kimi-K2.5"))
    assert all(isinstance(group.attention, LatentAttention) for group in nested.groups)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"layer_types": ["mamba"] * 48}, UnsupportedError, "layer_types has 'mamba', expected one of"),
        ({"num_experts_per_tok": 200}, ModelError, "num_experts_per_tok is 200, expected 1 to 128"),
        ({"num_hidden_layers": None}, ModelError, "num_hidden_layers is absent"),
        ({"layer_types": ["linear_attention"] * 48}, ModelError, "linear_num_key_heads is None"),
    ],
)
def test_what_has_no_closed_form_is_refused_by_name(change: dict[str, Any], error: type[Exception], text: str) -> None:
    config = {**catalogue_entries()["Qwen3-30B-A3B"].config, **change}
    with pytest.raises(error, match=text):
        facts_of_config(config, name="x", source="config.json")


def test_a_typo_in_a_model_suggests_the_right_one_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_facts("gpt_oss_120B") is read_facts("openai/gpt-oss-120b")
    with pytest.raises(ModelError, match="gpt-os-120b") as caught:
        read_facts("gpt-os-120b")
    assert caught.value.hint is not None and "gpt-oss-120b" in caught.value.hint
    file = tmp_path / "config.json"
    for content in ("{", json.dumps([1])):
        file.write_text(content)
        with pytest.raises(ModelError, match=r"config\.json"):
            read_facts(file)
