"""How wide weights are stored: of a published checkpoint, or in a precision that is asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inlay.errors import InputError
from inlay.models.facts.architecture import Formats, ModelFacts

# Bytes of a parameter with its scales: MXFP4 has 8 bits of scale for 32 numbers, NVFP4 for 16, int4 16 for 32.
BYTES = {"float32": 4.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 4.5 / 8, "mxfp4": 4.25 / 8, "int4": 4.5 / 8}
WHOLE = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}


def native_formats(config: Mapping[str, Any]) -> Formats:
    """What a config.json says of its weights. Quantised checkpoints keep the embedding as it was; mixtures in 4 bits keep
    attention too. KV is in two bytes, or four with weights in float32."""
    plain = WHOLE.get(str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch."), 2.0)
    quantised = config.get("quantization_config")
    method = str(quantised.get("quant_method", "")) if isinstance(quantised, Mapping) else ""
    kv = max(plain, 2.0)
    if method in ("fp8", "fbgemm_fp8"):
        return Formats(attention=1.0, feed_forward=1.0, experts=1.0, head=plain, kv=kv)
    if method == "mxfp4":
        return Formats(attention=plain, feed_forward=plain, experts=BYTES["mxfp4"], head=plain, kv=kv)
    if method in ("compressed-tensors", "gptq", "awq", "auto-round"):
        narrow = BYTES["int4"]
        mixture = any(config.get(name) for name in ("n_routed_experts", "num_experts", "num_local_experts"))
        kept = plain if mixture else narrow
        return Formats(attention=kept, feed_forward=kept, experts=narrow, head=plain, kv=kv)
    return Formats(attention=plain, feed_forward=plain, experts=plain, head=plain, kv=kv)


def formats_of(facts: ModelFacts, precision: str, *, kv: str | None = None) -> Formats:
    """The formats of a model served in `precision`: "native", or one of BYTES; `kv` likewise, else as published.

    In 4 bits a mixture keeps attention and dense parts in its native format, at most two bytes. Embeddings stay native.
    """
    own = facts.native
    width = own.kv if kv is None else BYTES.get(kv, 0.0)
    if (precision != "native" and precision not in BYTES) or width <= 0.0:
        wrong = precision if width > 0.0 else kv
        raise InputError(f"precision is {wrong!r}, expected native or one of {sorted(BYTES)}", hint="for example fp8")
    if precision == "native":
        return Formats(attention=own.attention, feed_forward=own.feed_forward, experts=own.experts, head=own.head, kv=width)
    wide = BYTES[precision]
    if wide < 1.0 and facts.is_mixture:
        experts = min(own.experts, wide)
        return Formats(attention=own.attention, feed_forward=own.feed_forward, experts=experts, head=own.head, kv=width)
    return Formats(attention=wide, feed_forward=wide, experts=min(own.experts, wide), head=own.head, kv=width)
