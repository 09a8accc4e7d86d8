"""Facts of models for those who plan: parameters, bytes and FLOPs as closed forms, without weights. A door of `models`."""

from __future__ import annotations

from inlay.models.facts.architecture import (
    Attention,
    Experts,
    FeedForward,
    Formats,
    LatentAttention,
    LayerGroup,
    LinearAttention,
    ModelFacts,
)
from inlay.models.facts.catalogue import CatalogueEntry, catalogue_entries, model_names, read_facts
from inlay.models.facts.config import facts_of_config
from inlay.models.facts.counts import (
    PassCount,
    active_parameters,
    experts_hit,
    kv_bytes,
    kv_bytes_per_token,
    kv_row_bytes,
    one_pass,
    parameters,
    score_flops,
    state_bytes,
    weight_bytes,
)
from inlay.models.facts.formats import formats_of

__all__ = [
    "Attention",
    "CatalogueEntry",
    "Experts",
    "FeedForward",
    "Formats",
    "LatentAttention",
    "LayerGroup",
    "LinearAttention",
    "ModelFacts",
    "PassCount",
    "active_parameters",
    "catalogue_entries",
    "experts_hit",
    "facts_of_config",
    "formats_of",
    "kv_bytes",
    "kv_bytes_per_token",
    "kv_row_bytes",
    "model_names",
    "one_pass",
    "parameters",
    "read_facts",
    "score_flops",
    "state_bytes",
    "weight_bytes",
]
