"""Attention over KV pages by OpenVINO's own operator: put into a converted model, made ready for loading. No torch.

The operator is internal to OpenVINO and may change with it; an artifact is lowered anew for another version anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inlay.backends.openvino.support import import_openvino
from inlay.errors import ArtifactError
from inlay.specs.artifact import ArtifactManifest
from inlay.specs.stage import PagedShape

OPERATOR = "inlay.paged_attention.default"
NODE = "PagedAttentionExtension"
LONGEST, SCALE, WINDOW = 9, 10, 11
"""Arguments of our operator that are not queries, keys, values, pools and indices, which theirs takes in the same order."""
KEY_POOL = 3
NOTHING, ZERO = (0,), ()
UNUSED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("int32", NOTHING),  # window over which scores are summed
    ("int32", NOTHING), ("int32", NOTHING), ("float32", NOTHING),  # rotation of pages
    ("float32", NOTHING), ("int32", ZERO), ("int32", ZERO),  # sparse attention
    ("float32", NOTHING),  # sinks
    ("int32", ZERO), ("int32", NOTHING), ("int32", NOTHING), ("int32", NOTHING),  # eviction
    ("int32", NOTHING),  # kinds of tokens
    ("uint8", NOTHING), ("int32", NOTHING),  # bias among new tokens
)  # fmt: skip
"""What we leave out of their operator, as shapes of empty or zero inputs after the longest length."""


def paged_attention() -> Any:
    """The rule by which the frontend converts our operator."""
    import_openvino()
    from openvino.frontend.pytorch import ConversionExtension

    return ConversionExtension(OPERATOR, _convert)


def _convert(context: Any) -> list[Any]:
    from openvino import op, opset13

    def constant(value: Any, kind: str) -> Any:
        return opset13.constant(np.array(value, kind)).output(0)

    scale, window = (context.get_values_from_const_input(index) for index in (SCALE, WINDOW))
    given = [context.get_input(index) for index in range(LONGEST)]
    settings = [constant(scale, "float32"), constant(window, "int32"), constant(np.zeros(NOTHING), "float32")]  # no slopes
    unused = [constant(np.zeros(shape), kind) for kind, shape in UNUSED]
    return [op._PagedAttentionExtension([*given, *settings, context.get_input(LONGEST), *unused]).output(0)]


def state_heads(model: Any, manifest: ArtifactManifest) -> None:
    """Say at every attention of a model just read how many heads of which size its pools have: files do not hold it.

    Raises ArtifactError where the model has not one attention for each layer of the manifest's stage.
    """
    assert manifest.stage is not None
    shape = PagedShape(stage=manifest.stage, page=manifest.page)
    layers = {parameter.get_friendly_name(): index for index, parameter in enumerate(model.get_parameters())}
    found = set()
    for node in model.get_ops():
        if node.get_type_name() != NODE:
            continue
        layer = layers[node.input_value(KEY_POOL).get_node().get_friendly_name()] - shape.key_pages(0)
        item = shape.stage.layers[layer]
        found.add(layer)
        for name, value in (
            ("num_k_heads", item.key_heads), ("k_head_size", item.key_dim),
            ("num_v_heads", item.value_heads), ("v_head_size", item.value_dim),
        ):  # fmt: skip
            node.set_rt_info(value, name)
    if found != set(range(shape.depth)):
        raise ArtifactError(f"artifact has paged attention of layers {sorted(found)}, expected 0 to {shape.depth - 1}")
