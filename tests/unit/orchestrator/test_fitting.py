"""Whether regions fit their devices: weights and KV of their own layers, embeddings and head where they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inlay.errors import DeploymentError, UnsupportedError
from inlay.hardware import parse_cluster
from inlay.models import ModelSpec, read_model, write_tensors
from inlay.orchestrator.compiling import check_available, lower_request
from inlay.orchestrator.fitting import LoweredRegion, check_memory, predicted_weights, region_memory
from inlay.orchestrator.local import region_options
from inlay.specs.deployment import Deployment, deployment_from_roles
from inlay.specs.precision import PRECISIONS, Precision
from inlay.specs.stage import KvLayer, StageShape

HIDDEN, VOCABULARY, DEPTH, HEADS, DIM = 16, 40, 4, 2, 8
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "vocab_size": VOCABULARY,
    "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": DIM,
    "intermediate_size": 24, "max_position_embeddings": 512,
}  # fmt: skip


def folder(path: Path, *, tied: bool = False, style: str = "llama") -> ModelSpec:
    """A checkpoint of ones in which layer i has a tensor of 100 + i numbers, so that sums tell the layers."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": tied}))
    names = {
        "llama": ("model.layers.{}.mlp.weight", "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
        "gpt2": ("h.{}.attn.weight", "wte.weight", "ln_f.weight", "head.weight"),
        "experts": ("model.layers.{}.mlp.experts.7.weight", "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
    }[style]
    tensors: dict[str, Any] = {names[0].format(layer): np.ones(100 + layer, "f4") for layer in range(DEPTH)}
    tensors |= {names[1]: np.ones((VOCABULARY, HIDDEN), "f4"), names[2]: np.ones(HIDDEN, "f4")}
    if not tied:
        tensors[names[3]] = np.ones((VOCABULARY, HIDDEN), "f4")
    write_tensors(path / "model.safetensors", tensors)
    return read_model(path)


def deployment(spec: ModelSpec, role: str, memory: dict[str, int | None]) -> Deployment:
    devices = {
        name: {"node": "local", "cores": [0], **({} if size is None else {"memory": size})} for name, size in memory.items()
    }
    cluster = parse_cluster({"nodes": {"local": {}}, "devices": devices}, source="test")
    return deployment_from_roles(str(spec.folder), cluster, [role], context=64, slots=2, chunk=8, capacities=(64,), depth=DEPTH)


EMBEDDING = VOCABULARY * HIDDEN


def count_parameters(spec: ModelSpec, first: int, end: int) -> int:
    """Numbers of four bytes each."""
    return predicted_weights(spec, first, end, Precision()) // 4


@pytest.mark.parametrize("style", ["llama", "gpt2", "experts"])
def test_each_piece_counts_its_own_layers_embeddings_first_and_the_rest_last(style, tmp_path) -> None:
    spec = folder(tmp_path / "m", style=style)
    assert count_parameters(spec, 0, 2) == EMBEDDING + 100 + 101
    assert count_parameters(spec, 1, 3) == 101 + 102
    assert count_parameters(spec, 2, 4) == 102 + 103 + HIDDEN + EMBEDDING
    assert count_parameters(spec, 0, 4) == 2 * EMBEDDING + HIDDEN + 406


def test_a_tied_embedding_is_needed_at_both_ends_and_counted_once_in_a_whole(tmp_path) -> None:
    spec = folder(tmp_path / "m", tied=True)
    assert count_parameters(spec, 0, 2) == EMBEDDING + 201
    assert count_parameters(spec, 2, 4) == 205 + HIDDEN + EMBEDDING
    assert count_parameters(spec, 0, 4) == EMBEDDING + HIDDEN + 406


def test_a_piece_has_the_kv_of_its_own_layers(tmp_path) -> None:
    spec = folder(tmp_path / "m")
    found = deployment(spec, "prefill,decode=cpu:0/null@0+cpu:1/null@1-", {"cpu:0": None, "cpu:1": None})
    first, last = (region_memory(found, region, spec) for region in found.roles[0].regions)
    slots, kept = 2 * 64, 2 * 64 // 2
    assert first.kv_pool == 4 * 2 * 1 * HEADS * DIM * (slots + kept) and last.kv_pool == 3 * first.kv_pool
    assert first.weights == 4 * count_parameters(spec, 0, 1) and last.buffers > first.buffers > 0
    assert first.total == first.weights + first.kv_pool + first.buffers


def test_a_paged_runner_has_one_pool_for_all_lengths(tmp_path) -> None:
    spec = folder(tmp_path / "m")
    found = msgspec.structs.replace(deployment(spec, "prefill,decode=cpu:0/openvino", {"cpu:0": None}), capacities=(16, 64))
    region = found.roles[0].regions[0]
    paged = region_memory(found, msgspec.structs.replace(region, runner="paged"), spec)
    assert paged.kv_pool == 4 * 2 * DEPTH * HEADS * DIM * 2 * 64 < region_memory(found, region, spec).kv_pool


def test_a_paged_runner_is_asked_for_in_pages_of_its_backend_and_refused_where_there_are_none(tmp_path) -> None:
    pytest.importorskip("openvino")
    spec = folder(tmp_path / "m")
    found = deployment(spec, "prefill,decode=cpu:0/openvino", {"cpu:0": None})
    region = found.roles[0].regions[0]
    paged = msgspec.structs.replace(region, runner="paged")
    check_available(paged)
    assert (lower_request(found, region).page, lower_request(found, paged).page) == (0, 32)
    with pytest.raises(
        UnsupportedError, match="cpu:0/reference asks for a paged runner, but reference has no attention"
    ) as caught:
        check_available(msgspec.structs.replace(paged, backend="reference"))
    assert caught.value.hint == "backends that have it: openvino"


def test_a_model_that_fits_neither_device_alone_fits_both_together(tmp_path) -> None:
    spec = folder(tmp_path / "m")
    whole = deployment(spec, "prefill,decode=cpu:0/null", {"cpu:0": None, "cpu:1": None})
    limit = int(0.8 * region_memory(whole, whole.roles[0].regions[0], spec).total)
    sizes: dict[str, int | None] = {"cpu:0": limit, "cpu:1": limit}
    for name in sizes:
        with pytest.raises(DeploymentError, match=rf"{name}/null needs .* but {name} has") as caught:
            check_memory(deployment(spec, f"prefill,decode={name}/null", sizes), spec)
        assert "cut the layers" in (caught.value.hint or "")
    check_memory(deployment(spec, "prefill,decode=cpu:0/null@0-1+cpu:1/null@2-", sizes), spec)
    with pytest.raises(DeploymentError, match=r"cpu:1/null needs .* for layers 1 to 3 \(weights .* but cpu:1 has"):
        small = {**sizes, "cpu:1": limit // 2}
        check_memory(deployment(spec, "prefill,decode=cpu:0/null@0+cpu:1/null@1-", small), spec)


def test_a_backend_that_holds_itself_to_a_memory_is_told_that_of_its_device_and_no_other_is(tmp_path) -> None:
    spec = folder(tmp_path / "m")
    found = deployment(spec, "prefill,decode=cpu:0/contrary@0+cpu:1/null@1-", {"cpu:0": 1 << 20, "cpu:1": 1 << 20})
    assert [region_options(found, region) for region in found.roles[0].regions] == [{"memory": str(1 << 20)}, {}]
    free = msgspec.structs.replace(found, cluster=deployment(spec, "prefill,decode=cpu:0/null", {"cpu:0": None}).cluster)
    assert region_options(free, free.roles[0].regions[0]) == {}


def test_eight_bits_count_a_byte_a_number_and_a_scale_a_row_and_embeddings_stay_wide(tmp_path) -> None:
    for tied in (False, True):
        spec = folder(tmp_path / f"m{tied}", tied=tied)
        head = EMBEDDING + 4 * VOCABULARY
        # The layers' own tensors here have one axis, as norms and biases: they stay in float32.
        assert predicted_weights(spec, 0, 4, PRECISIONS["int8"]) == 4 * (EMBEDDING + HIDDEN + 406) + head
        assert predicted_weights(spec, 2, 4, PRECISIONS["int8"]) == 4 * (HIDDEN + 205) + head
        assert predicted_weights(spec, 0, 2, PRECISIONS["int8"]) == 4 * (EMBEDDING + 201)


def test_arithmetic_of_sixteen_bits_halves_the_frameworks_copy_of_the_weights(tmp_path) -> None:
    spec = folder(tmp_path / "m")
    sizes: dict[str, int | None] = {"cpu:0": None}
    wide, narrow, whole = (
        region_memory(found, found.roles[0].regions[0], spec).weights
        for found in (deployment(spec, f"prefill,decode=cpu:0/null{kind}", sizes) for kind in ("", ":bfloat16", ":int8"))
    )
    assert wide == 2 * narrow and whole == predicted_weights(spec, 0, 4, PRECISIONS["int8"])


def test_what_was_lowered_is_counted_by_its_real_geometry(tmp_path) -> None:
    spec = folder(tmp_path / "m")
    found = deployment(spec, "prefill,decode=cpu:0/null", {"cpu:0": None})
    region = found.roles[0].regions[0]
    layer = KvLayer(key_heads=1, key_dim=24, value_heads=3, value_dim=5)
    stage = StageShape(layers=(layer, layer), vocabulary=VOCABULARY)
    needed = region_memory(found, region, spec, lowered=LoweredRegion(stage=stage, weights=1000))
    assert needed.weights == 1000 and needed.kv_pool == 4 * 2 * (24 + 3 * 5) * (2 * 64 + 2 * 64 // 2)
    limited = deployment(spec, "prefill,decode=cpu:0/null", {"cpu:0": region_memory(found, region, spec).total})
    check_memory(limited, spec)
    huge = LoweredRegion(stage=stage, weights=10**9)
    with pytest.raises(DeploymentError, match=r"cpu:0/null needs 9\d\d\.\d MiB \(weights 953\.7 MiB"):
        check_memory(limited, spec, lowered={limited.roles[0].process(region): huge})
