"""Language models of the zoo: text encoders, decoders without a cache, encoder-decoders. Random weights, nothing downloaded."""

from __future__ import annotations

from typing import Any

from zoo_entry import Built, listed, make, shake


def ragged(batch: int, length: int) -> Any:
    """A mask whose second row is shorter."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1, length - 4 :] = 0
    return mask


def text(model: Any, *, vocabulary: int, most: int = 64, batches: int = 8) -> Built:
    """A model of token ids and a mask."""
    import torch

    ids = torch.randint(3, vocabulary, (2, 11))
    return {
        "model": model,
        "kwargs": {"input_ids": ids, "attention_mask": ragged(2, 11)},
        "dynamic": {
            "input_ids": {0: ("batch", 1, batches), 1: ("length", 1, most)},
            "attention_mask": {0: "batch", 1: "length"},
        },
        "points": [{"batch": 1, "length": 16}, {"batch": 3, "length": 24}],
    }


def encoder(kind: str, cls: str, **config: Any) -> Built:
    """A text encoder; ids 0 to 2 are special."""
    vocabulary = config.setdefault("vocab_size", 199)
    return text(make(kind, cls, **config), vocabulary=vocabulary)


SMALL = {
    "vocab_size": 199, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 12}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@listed("text encoder", "bert base, 2 of 12 layers", published=True)
def bert() -> Built:
    return encoder("bert", "BertModel", **BASE, vocab_size=30522)


@listed("text encoder", "roberta base, 2 of 12 layers", published=True)
def roberta() -> Built:
    return encoder("roberta", "RobertaModel", **BASE, vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)


@listed("text encoder", "distilbert base, 2 of 6 layers", published=True)
def distilbert() -> Built:
    return encoder("distilbert", "DistilBertModel", vocab_size=30522, dim=768, n_heads=12, hidden_dim=3072, n_layers=2)


@listed("text encoder", "albert, 4 layers that share their weights")
def albert() -> Built:
    config = {**SMALL, "num_hidden_layers": 4, "embedding_size": 32}
    return encoder("albert", "AlbertModel", **config)


@listed("text encoder", "electra small, 3 of 12 layers", published=True)
def electra() -> Built:
    config = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 4}
    return encoder("electra", "ElectraModel", **config, embedding_size=128, vocab_size=30522)


@listed("text encoder", "mpnet base, 2 of 12 layers (relative position bias)", published=True)
def mpnet() -> Built:
    return encoder("mpnet", "MPNetModel", **BASE, vocab_size=30527, max_position_embeddings=514)


@listed("text encoder", "deberta v2, 3 layers (disentangled attention)")
def deberta_v2() -> Built:
    attention = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "share_att_key": True}
    return encoder("deberta-v2", "DebertaV2Model", **SMALL, **attention, norm_rel_ebd="layer_norm", max_relative_positions=64)


@listed("text encoder", "modernbert, 4 layers (local and global attention)")
def modernbert() -> Built:
    config = {**SMALL, "num_hidden_layers": 4, "global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0}
    return encoder("modernbert", "ModernBertModel", **config, **TOKENS_OF_BERT)


TOKENS_OF_BERT = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}


@listed("text encoder", "fnet, 3 layers (Fourier transforms instead of attention)")
def fnet() -> Built:
    built = encoder("fnet", "FNetModel", **{key: item for key, item in SMALL.items() if key != "num_attention_heads"})
    del built["kwargs"]["attention_mask"], built["dynamic"]["attention_mask"]
    return built


@listed("text encoder", "mobilebert, 3 layers (bottlenecks)")
def mobilebert() -> Built:
    config = {**SMALL, "embedding_size": 32, "intra_bottleneck_size": 32, "hidden_size": 64}
    return encoder("mobilebert", "MobileBertModel", **config)


@listed("text encoder", "t5 encoder alone, 3 layers")
def t5_encoder() -> Built:
    return encoder("t5", "T5EncoderModel", d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4)


def decoder(kind: str, *, published: bool = False, cls: str = "AutoModelForCausalLM", **config: Any) -> Built:
    """A causal language model that keeps no cache."""
    import torch
    import transformers

    torch.manual_seed(0)
    full = {**({} if published else {**SMALL, "num_key_value_heads": 2}), **TOKENS, "use_cache": False, **config}
    found = transformers.AutoConfig.for_model(kind, **full)
    model = shake(getattr(transformers, cls).from_config(found).eval())
    return text(model, vocabulary=full["vocab_size"], batches=4)


@listed("decoder", "SmolLM2 135M (llama), 3 of 30 layers", published=True)
def llama() -> Built:
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 3, "tie_word_embeddings": True}
    return decoder("llama", published=True, vocab_size=49152, hidden_size=576, intermediate_size=1536, **heads)


@listed("decoder", "gpt2, 2 of 12 layers", published=True)
def gpt2() -> Built:
    return decoder("gpt2", published=True, vocab_size=50257, n_embd=768, n_head=12, n_layer=2)


@listed("decoder", "opt 125M, 2 of 12 layers", published=True)
def opt() -> Built:
    config = {"hidden_size": 768, "ffn_dim": 3072, "num_attention_heads": 12, "num_hidden_layers": 2}
    return decoder("opt", published=True, vocab_size=50272, word_embed_proj_dim=768, **config)


@listed("decoder", "pythia 70M (gpt_neox), 3 of 6 layers", published=True)
def gpt_neox() -> Built:
    config = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 3}
    return decoder("gpt_neox", published=True, vocab_size=50304, **config)


@listed("decoder", "qwen3, 3 layers (normed queries and keys)")
def qwen3() -> Built:
    return decoder("qwen3", head_dim=16)


@listed("decoder", "gemma2, 4 layers (soft caps, windows every other layer)")
def gemma2() -> Built:
    return decoder("gemma2", head_dim=16, num_hidden_layers=4, sliding_window=8, query_pre_attn_scalar=16)


@listed("decoder", "gemma3, 4 layers (windows, two rotary tables)")
def gemma3_text() -> Built:
    return decoder("gemma3_text", head_dim=16, num_hidden_layers=4, sliding_window=8, query_pre_attn_scalar=16)


@listed("decoder", "mistral, 3 layers (window of 8)")
def mistral() -> Built:
    return decoder("mistral", sliding_window=8)


@listed("decoder", "phi3, 3 layers (joined projections)")
def phi3() -> Built:
    return decoder("phi3")


@listed("decoder", "bloom, 3 layers (alibi)")
def bloom() -> Built:
    return decoder("bloom", published=True, vocab_size=199, hidden_size=64, n_head=4, n_layer=3)


@listed("decoder", "mixtral, 3 layers of 4 experts, 2 taken")
def mixtral() -> Built:
    return decoder("mixtral", num_local_experts=4, num_experts_per_tok=2, experts_implementation="batched_mm")


@listed("decoder", "mixtral again, experts by a grouped matrix product")
def mixtral_grouped() -> Built:
    return decoder("mixtral", num_local_experts=4, num_experts_per_tok=2, experts_implementation="grouped_mm")


@listed("decoder", "qwen3 of experts, 3 layers of 8 experts, 2 taken")
def qwen3_moe() -> Built:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    return decoder("qwen3_moe", head_dim=16, **experts, experts_implementation="batched_mm")


@listed("decoder", "gpt-oss, 4 layers of 4 experts (sinks, windows)")
def gpt_oss() -> Built:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "batched_mm"}
    return decoder("gpt_oss", head_dim=16, num_hidden_layers=4, sliding_window=8, **experts)


@listed("decoder", "deepseek v3, 3 layers (latent attention)")
def deepseek_v3() -> Built:
    latent = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 32}
    return decoder(
        "deepseek_v3", num_key_value_heads=4, first_k_dense_replace=1, experts_implementation="batched_mm", **latent, **experts
    )


@listed("decoder", "mamba, 3 layers, the length fixed")
def mamba() -> Built:
    config = {"vocab_size": 199, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 8}
    built = decoder("mamba", published=True, **config)
    del built["dynamic"]["input_ids"][1], built["dynamic"]["attention_mask"], built["kwargs"]["attention_mask"]
    return {**built, "points": [{"batch": 1}, {"batch": 3}]}


def two_sided(model: Any, *, vocabulary: int) -> Built:
    """An encoder-decoder of token ids on both sides, with a ragged mask over the source."""
    import torch

    return {
        "model": model,
        "kwargs": {
            "input_ids": torch.randint(3, vocabulary, (2, 11)),
            "attention_mask": ragged(2, 11),
            "decoder_input_ids": torch.randint(3, vocabulary, (2, 7)),
            "use_cache": False,
        },
        "dynamic": {
            "input_ids": {0: ("batch", 1, 4), 1: ("source", 1, 64)},
            "attention_mask": {0: "batch", 1: "source"},
            "decoder_input_ids": {0: "batch", 1: ("target", 1, 64)},
        },
        "points": [{"batch": 1, "source": 16, "target": 12}, {"batch": 3, "source": 24, "target": 8}],
    }


@listed("encoder-decoder", "t5 small, 2 of 6 layers a side", published=True)
def t5() -> Built:
    config = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 2, "num_heads": 8, "vocab_size": 32128}
    return two_sided(make("t5", "T5ForConditionalGeneration", **config), vocabulary=32128)


@listed("encoder-decoder", "t5, 3 layers a side, small")
def t5_small() -> Built:
    config = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4, "vocab_size": 199}
    return two_sided(make("t5", "T5ForConditionalGeneration", **config), vocabulary=199)


@listed("encoder-decoder", "bart base, 2 of 6 layers a side", published=True)
def bart() -> Built:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 12, "decoder_attention_heads": 12}
    wide = {"d_model": 768, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "vocab_size": 50265}
    return two_sided(make("bart", "BartForConditionalGeneration", **layers, **wide), vocabulary=50265)


@listed("encoder-decoder", "marian, 3 layers a side")
def marian() -> Built:
    layers = {"encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 199, "max_position_embeddings": 128}
    special = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
    return two_sided(make("marian", "MarianMTModel", **layers, **config, **special), vocabulary=199)
