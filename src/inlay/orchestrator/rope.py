"""How a model turns its keys, in the words of the KV manifest."""

from __future__ import annotations

import json

from inlay.models import ModelSpec
from inlay.specs.kv import Rope

INTERLEAVED = frozenset(
    ["blt", "codegen", "cohere", "cohere2", "ernie4_5", "ernie4_5_moe", "glm", "glm4", "gptj", "helium", "moonshine"]
)
"""Model types whose code in transformers pairs neighbouring numbers of a head; all others with rotary keys pair halves."""


def rope_of(spec: ModelSpec) -> Rope:
    """The stage program returns keys after the rotation, in the order of the model's own code; none for a model without."""
    if spec.rope_theta is None:
        return Rope()
    scaling = "" if spec.rope_scaling is None else json.dumps(spec.rope_scaling, sort_keys=True)
    convention = "interleaved" if spec.model_type in INTERLEAVED else "half"
    return Rope(convention=convention, theta=spec.rope_theta, scaling=scaling)
