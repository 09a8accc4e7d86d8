"""Cutting a stage by layers: one hidden state crosses, everything else is rebuilt or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inlay.backends import backend
from inlay.errors import UnsupportedError
from inlay.graph import Node, Program, Tensor
from inlay.models import read_model
from inlay.runtime.cache import Cache, artifact_key, read_manifest
from inlay.runtime.layers import StagePiece, cut_layers
from inlay.specs.artifact import LowerRequest
from inlay.specs.stage import KvLayer, StageShape

LAYER = KvLayer(key_heads=1, key_dim=2, value_heads=1, value_dim=2)
STAGE = StageShape(vocabulary=9, layers=(LAYER,) * 3)
HIDDEN = Tensor(dtype="float32", shape=("B", "T", 8))
NUMBER = Tensor(dtype="int", shape=())


def node(name: str, inputs: str, path: str = "", value: Tensor = HIDDEN) -> Node:
    return Node(name=name, operator=f"op.{name}", inputs=tuple(inputs.split()), outputs=(value,), path=path)


def layer(number: int, given: str, *, stack: str = "model.layers") -> list[Node]:
    """Keys and values from what is given, attention over them with the mask, a residual after it."""
    path = f"{stack}.{number}"
    return [
        node(f"scale_{number}", f"w_norm_{number}", f"{path}.norm"),
        node(f"k_{number}", f"{given} scale_{number} w_k_{number}", f"{path}.attention"),
        node(f"v_{number}", f"{given} w_k_{number}", f"{path}.attention"),
        node(f"mix_{number}", f"k_{number} v_{number} past_k_{number} past_v_{number} mask width", f"{path}.attention"),
        node(f"out_{number}", f"{given} mix_{number}", path),
    ]


def program(extra: Sequence[Node] = (), *, stack: str = "model.layers", replaced: dict[str, Node] | None = None) -> Program:
    numbers = range(len(STAGE.layers))
    nodes = [
        node("width", "tokens", value=NUMBER),
        node("positions", "past_lengths width"),
        node("mask", "positions width"),
        node("embedded", "tokens w_embed", "model.embed"),
    ]
    for number in numbers:
        nodes += layer(number, f"out_{number - 1}" if number else "embedded", stack=stack)
    nodes += [*extra, node("picked", "out_2 logit_rows", "model.norm"), node("logits", "picked w_embed", "head")]
    weights = ["w_embed", *(f"w_{kind}_{number}" for number in numbers for kind in ("norm", "k"))]
    inputs = ["tokens", "past_lengths", "logit_rows", *(f"past_{kind}_{number}" for kind in "kv" for number in numbers)]
    return Program(
        name="toy",
        inputs=dict.fromkeys(inputs, HIDDEN),
        weights=dict.fromkeys(weights, HIDDEN),
        nodes=tuple((replaced or {}).get(item.name, item) for item in nodes),
        outputs=("logits", *(f"{kind}_{number}" for kind in "kv" for number in numbers)),
        digest="",
        weight_nodes={name: name for name in weights},
    )


def test_a_piece_has_the_ports_of_its_layers_and_rebuilds_what_is_cheap() -> None:
    first, last = (cut_layers(program(), STAGE, first=low, end=high) for low, high in ((0, 1), (1, 3)))
    assert first == StagePiece(
        shape=STAGE.piece(0, 1, hidden=8),
        nodes=("positions", "mask", "embedded", "scale_0", "k_0", "v_0", "mix_0", "out_0"),
        inputs=("tokens", "past_lengths", "past_k_0", "past_v_0"),
        outputs=("out_0", "k_0", "v_0"),
    )
    assert last.inputs == ("out_0", "past_lengths", "logit_rows", "past_k_1", "past_k_2", "past_v_1", "past_v_2")
    assert last.outputs == ("logits", "k_1", "k_2", "v_1", "v_2")
    assert last.nodes[:2] == ("positions", "mask") and "embedded" not in last.nodes and last.nodes[-2:] == ("picked", "logits")
    for piece in (first, last):
        assert (len(piece.inputs), len(piece.outputs)) == tuple(map(len, piece.shape.ports()))
    middle = cut_layers(program(), STAGE, first=1, end=2)
    assert middle.shape.hidden == 8 and middle.inputs[0] == "out_0" and middle.outputs[0] == "out_1"


def test_the_list_of_layers_is_found_under_any_name_and_level() -> None:
    for stack in ("model.layers", "transformer.h", "0.blocks", "a.1.decoder.layer"):
        assert cut_layers(program(stack=stack), STAGE, first=0, end=2).outputs[0] == "out_1"


def test_what_needs_weights_alone_is_repeated_where_it_is_needed() -> None:
    shared = node("shared", "w_norm_0", "model.layers.0.norm")
    uses = node("k_2", "out_1 scale_2 shared", "model.layers.2.attention")
    both = program(replaced={"k_2": uses})
    both = msgspec.structs.replace(both, nodes=(shared, *both.nodes))
    assert (
        "shared" in cut_layers(both, STAGE, first=2, end=3).nodes
        and "shared" not in cut_layers(both, STAGE, first=0, end=1).nodes
    )


@pytest.mark.parametrize(
    ("replaced", "cut", "words"),
    [
        (
            {"mix_2": node("mix_2", "k_2 v_2 past_k_2 past_v_2 mask v_0", "model.layers.2")},
            (1, 3),
            r"toy: 2 values cross the cut before layer 1 \('v_0' \(op.v_0 in model.layers.0.attention\), 'out_0'",
        ),
        ({"k_1": node("k_1", "out_0 past_k_0", "model.layers.1")}, (1, 3), r"layers 1 to 2 need input 'past_k_0'"),
        ({"k_1": node("k_1", "out_0 tokens", "model.layers.1")}, (1, 3), r"layers 1 to 2 need input 'tokens'"),
        ({"v_0": node("v_0", "embedded w_k_0", "model.layers.1")}, (0, 1), r"'mix_0' .* layer 0 needs a value of layer 1"),
        (
            {"out_0": node("out_0", "embedded mix_0", "model.layers.0", Tensor(dtype="float32", shape=("B", 8)))},
            (0, 1),
            r"'out_0' .* crosses a cut, expected a hidden state float32 \[B, T, d\]",
        ),
        (
            {"out_0": node("out_0", "embedded mix_0", "model.layers.0", Tensor(dtype="bfloat16", shape=("B", "T", 8)))},
            (0, 1),
            "expected a hidden state float32",
        ),
    ],
    ids=["second value", "foreign past", "tokens again", "kv elsewhere", "two axes", "dtype"],
)
def test_a_model_in_which_anything_else_crosses_is_refused_by_name(replaced, cut, words) -> None:
    with pytest.raises(UnsupportedError, match=words) as caught:
        cut_layers(program(replaced=replaced), STAGE, first=cut[0], end=cut[1])
    assert caught.value.message.startswith("toy: ") and caught.value.hint


def test_a_layer_that_needs_a_later_one_and_a_model_without_a_list_of_layers_are_refused() -> None:
    strange = program([node("late", "out_2", "model.layers.0")])
    with pytest.raises(UnsupportedError, match=r"'late' .* of layer 0 needs a value of layer 2"):
        cut_layers(strange, STAGE, first=0, end=1)
    nameless = tuple(msgspec.structs.replace(item, path="") for item in program().nodes)
    with pytest.raises(UnsupportedError, match="no list of 3 layers"):
        cut_layers(msgspec.structs.replace(program(), nodes=nameless), STAGE, first=0, end=1)
    for first, end in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(UnsupportedError, match="expected a run within 0 to 3"):
            cut_layers(program(), STAGE, first=first, end=end)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder = tmp_path_factory.mktemp("models") / "gemma2"
    config = Gemma2Config(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, sliding_window=6,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_pieces_of_a_real_model_one_after_another_are_the_whole_exactly_at_several_sizes(model: Path) -> None:
    import torch

    from inlay.graph.capture import capture_stage, lifted_weights
    from inlay.models.torch import load_stage
    from inlay.runtime.lower import _piece

    stage = load_stage(model)
    exported = capture_stage(stage)
    cut_out = [_piece(stage, exported, LowerRequest(layers=cut)) for cut in pairwise((0, 1, 3, 4))]
    pieces = [(piece, interface.stage) for piece, interface in cut_out if interface.stage is not None]
    assert len(pieces) == 3
    for batch, width, capacity in ((3, 5, 16), (2, 1, 64), (1, 7, 8)):
        tokens, _, _, past_k, past_v = stage.example(batch=batch, width=width, capacity=capacity)
        generator = torch.Generator().manual_seed(batch)
        past_k, past_v = ([torch.randn(item.shape, generator=generator) for item in past] for past in (past_k, past_v))
        lengths, rows = torch.arange(batch) * 3 % capacity, torch.arange(batch) * width + width - 1
        with torch.no_grad():
            logits, new_k, new_v = stage(tokens, lengths, rows, past_k, past_v)
            given: Any = tokens
            found_k, found_v = [], []
            for piece, shape in pieces:
                own = slice(shape.first, shape.first + len(shape.layers))
                wanted = [rows] if shape.ends else []
                given, *new = piece.module(check_guards=False)(given, lengths, *wanted, *past_k[own], *past_v[own])
                found_k += new[: len(new) // 2]
                found_v += new[len(new) // 2 :]
        for one, other in zip([logits, *new_k, *new_v], [given, *found_k, *found_v], strict=True):
            assert torch.equal(one, other)
    names = [set(lifted_weights(piece)) for piece, _ in pieces]
    assert all(f"model.model.layers.{number}." not in name for name in names[0] for number in (1, 2, 3))
    assert any("embed_tokens" in name for name in names[0]) and not any("embed_tokens" in name for name in names[1])
    assert not any("layers.3" in name or "model.norm" in name for name in names[1])


def test_pieces_have_keys_of_their_own_and_a_manifest_that_says_which_layers_they_own(model: Path, tmp_path: Path) -> None:
    from inlay.runtime.lower import lower_stage

    requests = [LowerRequest(), *(LowerRequest(layers=cut) for cut in ((0, 2), (2, 4), (1, 4)))]
    null = backend("null")
    assert len({artifact_key(model, backend=null, request=request) for request in requests}) == 4
    lowered = lower_stage(model, wanted=[("null", request) for request in requests[1:3]], cache=Cache(tmp_path))
    stages = [read_manifest(Path(item.directory)).stage for item in lowered.artifacts]
    assert [(stage.first, len(stage.layers), stage.depth, stage.hidden) for stage in stages if stage] == [
        (0, 2, 4, 16),
        (2, 2, 4, 16),
    ]
    assert read_model(model).layers == 4
    steps = [step for step in lowered.seconds if step.startswith("lower")]
    assert steps == ["lower null layers 0 to 1", "lower null layers 2 to 3"]
