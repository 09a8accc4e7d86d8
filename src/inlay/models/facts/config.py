"""config.json to ModelFacts: dense, mixture of experts, sliding window, latent (MLA) and hybrid models.

Unlike `models.spec`, which says what is served here, it reads any model a plan may be made for, quantised ones too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from inlay.errors import ModelError, UnsupportedError
from inlay.models.facts.architecture import (
    AnyAttention,
    AnyFeedForward,
    Attention,
    Experts,
    FeedForward,
    LatentAttention,
    LayerGroup,
    LinearAttention,
    ModelFacts,
)
from inlay.models.facts.formats import native_formats
from inlay.models.spec import attention_kinds, positive, ties_embeddings

UNGATED = ("gpt2", "gpt_neox", "gptj", "opt", "phi", "starcoder2", "falcon", "bloom", "nemotron")
SOFTMAX = ("full_attention", "sliding_attention", "chunked_attention", "attention")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_CHOSEN = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk")


def facts_of_config(config: Mapping[str, Any], *, name: str, source: str) -> ModelFacts:
    """The facts in plain data of a Hugging Face config.json; a model of text and images gives those of its text part.

    Raises ModelError for a fact that is absent or wrong, UnsupportedError for a kind of layer without a closed form.
    """
    text = config.get("text_config")
    plain = {**config, **text} if isinstance(text, dict) else dict(config)
    where = Path(source)
    layers = [
        (_attention(where, plain, kind), _feed_forward(where, plain, index)) for index, kind in enumerate(_kinds(where, plain))
    ]
    groups = []
    for (attention, feed_forward), members in groupby(sorted(layers, key=repr)):
        groups.append(LayerGroup(count=len(list(members)), attention=attention, feed_forward=feed_forward))
    return ModelFacts(
        name=name,
        hidden=positive(where, plain, "hidden"),
        vocabulary=positive(where, plain, "vocabulary"),
        tied=ties_embeddings(plain, str(plain.get("model_type", ""))),
        groups=tuple(groups),
        native=native_formats(plain),
        source=source,
        draft_layers=_number(plain, ("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers")) or 0,
    )


def _kinds(where: Path, config: dict[str, Any]) -> list[tuple[str, int | None]]:
    """The kind and window of every layer."""
    count, every = positive(where, config, "layers"), _number(config, ("full_attention_interval",))
    if every and config.get("layer_types") is None:
        kinds = ["full_attention" if (index + 1) % every == 0 else "linear_attention" for index in range(count)]
        return [(kind, None) for kind in kinds]
    window, names = attention_kinds(config, count, where)
    for kind in names:
        if kind not in (*SOFTMAX, "linear_attention"):
            raise UnsupportedError(
                f"{where}: layer_types has {kind!r}, expected one of {sorted((*SOFTMAX, 'linear_attention'))}",
                hint="there is no closed form for its time and state; describe the model by layers that are known",
            )
    return [(kind, window if kind in ("sliding_attention", "chunked_attention") else None) for kind in names]


def _attention(where: Path, config: dict[str, Any], layer: tuple[str, int | None]) -> AnyAttention:
    kind, window = layer
    if kind == "linear_attention":
        names = {
            "key_heads": "linear_num_key_heads",
            "value_heads": "linear_num_value_heads",
            "key_dim": "linear_key_head_dim",
            "value_dim": "linear_value_head_dim",
            "kernel": "linear_conv_kernel_dim",
        }
        return LinearAttention(**{fact: _needed(where, config, name) for fact, name in names.items()})
    heads, hidden = positive(where, config, "heads"), positive(where, config, "hidden")
    if config.get("kv_lora_rank"):
        return LatentAttention(
            heads=heads,
            query_rank=_number(config, ("q_lora_rank",)) or 0,
            kv_rank=_needed(where, config, "kv_lora_rank"),
            rope_dim=_needed(where, config, "qk_rope_head_dim"),
            plain_dim=_needed(where, config, "qk_nope_head_dim"),
            value_dim=_needed(where, config, "v_head_dim"),
        )
    return Attention(
        heads=heads,
        kv_heads=positive(where, config, "kv_heads", default=1 if config.get("multi_query") is True else heads),
        head_dim=positive(where, config, "head_dim", default=hidden // heads),
        window=window,
        gated=config.get("attn_output_gate") is True,
    )


def _feed_forward(where: Path, config: dict[str, Any], layer: int) -> AnyFeedForward:
    gated = config.get("model_type") not in UNGATED
    count, hidden = _number(config, _EXPERTS), positive(where, config, "hidden")
    width = positive(where, config, "intermediate", default=4 * hidden)
    if not count or count == 1 or _is_dense(config, layer):
        return FeedForward(width=width, gated=gated)
    chosen = _number(config, _CHOSEN)
    if not chosen or chosen > count:
        raise ModelError(
            f"{where}: {_CHOSEN[0]} is {chosen!r}, expected 1 to {count}, the number of experts", hint="see the model's card"
        )
    own = _number(config, ("moe_intermediate_size", "expert_intermediate_size")) or width
    shared = _number(config, ("shared_expert_intermediate_size",)) or own * (_number(config, ("n_shared_experts",)) or 0)
    return Experts(count=count, chosen=chosen, width=own, shared_width=shared, gated=gated)


def _is_dense(config: dict[str, Any], layer: int) -> bool:
    """A layer of a mixture that has none: the first ones, listed ones, or those between every n-th."""
    if layer < (_number(config, ("first_k_dense_replace",)) or 0) or layer in (config.get("mlp_only_layers") or ()):
        return True
    return (layer + 1) % (_number(config, ("decoder_sparse_step",)) or 1) != 0


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _needed(where: Path, config: Mapping[str, Any], name: str) -> int:
    value = _number(config, (name,))
    if value is None or value < 1:
        raise ModelError(
            f"{where}: {name} is {config.get(name)!r}, expected a whole number above zero", hint="see the model's card"
        )
    return value
