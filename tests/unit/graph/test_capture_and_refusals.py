"""Captured stages: dynamic sizes, a digest that sees every argument, and models refused by name with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inlay.errors import ModelError, UnsupportedError
from inlay.graph import Program

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def model_of(kind: str, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **changes}))


def program_of(kind: str = "llama", **changes: Any) -> Program:
    from inlay.graph.capture import capture_stage
    from inlay.graph.summary import summarize
    from inlay.models.torch import stage_of

    return summarize(capture_stage(stage_of(model_of(kind, **changes))), kind)


def small(function: Callable[..., Any]) -> str:
    from inlay.graph.summary import summarize

    class Module(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, y: Any) -> Any:
            return function(x, y)

    return summarize(torch.export.export(Module(), (torch.zeros(3, 3), torch.zeros(3, 3))), "small").digest


def test_a_program_names_sizes_modules_sources_and_weights() -> None:
    program = program_of()
    assert program.inputs["tokens"].shape == ("B", "T") and program.inputs["logit_rows"].shape == ("R",)
    assert program.inputs["past_k_0"].shape == ("B", 1, "P", 8)
    assert program.weights["model.model.layers.0.self_attn.k_proj.weight"].shape == (8, 16)
    linear = next(node for node in program.nodes if "k_proj" in node.path)
    assert linear.operator.startswith("aten.") and ".py:" in linear.source and linear.outputs[0].shape == ("B", "T", 8)
    known = set(program.inputs) | {node.name for node in program.nodes}
    assert set(program.outputs) <= known and len(program.outputs) == 3


def test_the_digest_is_stable_and_sees_one_changed_constant() -> None:
    base = program_of()
    assert base.digest == program_of().digest
    assert base.digest != program_of(rms_norm_eps=1e-5).digest
    assert base.digest != program_of(hidden_act="relu").digest
    assert base.digest != program_of("mistral", sliding_window=4).digest


def test_the_digest_sees_operand_order_dimensions_dtypes_and_outputs() -> None:
    digests = [
        small(lambda x, y: (x - y, x)), small(lambda x, y: (y - x, x)), small(lambda x, y: (x, x - y)),
        small(lambda x, y: (x.softmax(0), y)), small(lambda x, y: (x.softmax(1), y)), small(lambda x, y: (x + 1.0, y)),
        small(lambda x, y: (x + 2.0, y)), small(lambda x, y: (x.double(), y)), small(lambda x, y: (x.half(), y)),
    ]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert small(lambda x, y: (x - y, x)) == digests[0]


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("bloom", {"n_head": 2, "n_layer": 1}, "does not fit the stage program"),
        ("t5", {}, "encoder-decoder"),
        ("mamba", {}, "linear_attention|keeps a state|stage program"),
        ("llama4_text", {}, "chunked_attention"),
        (
            "phi3",
            {
                "original_max_position_embeddings": 32,
                "rope_parameters": {
                    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
                    "original_max_position_embeddings": 32,
                },
            },
            "rope type 'longrope'",
        ),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope type 'dynamic'"),
    ],
    ids=["bloom", "t5", "mamba", "llama4", "longrope", "dynamic rope"],
)  # fmt: skip
def test_a_model_that_the_stage_cannot_express_is_refused_by_type_and_reason(
    kind: str, changes: dict[str, Any], reason: str
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from inlay.models.torch import stage_of

    if kind == "t5":
        config = AutoConfig.for_model("t5", d_model=16, d_ff=24, num_layers=1, num_heads=2, d_kv=8, vocab_size=31)
        model = AutoModelForSeq2SeqLM.from_config(config)
    else:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **changes}))
    with pytest.raises(UnsupportedError, match=rf"model type '{kind}'.*({reason})"):
        stage_of(model)


def test_a_folder_without_weights_or_with_foreign_code_is_refused(tmp_path: Path) -> None:
    from inlay.models.torch import load_stage

    with pytest.raises(ModelError, match=r"config\.json"):
        load_stage(tmp_path)
    model_of("llama").config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_stage(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "evil.Config"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('ran foreign code')")
    with pytest.raises(UnsupportedError, match="cannot read its config"):
        load_stage(tmp_path)


def test_a_bfloat16_checkpoint_is_read_as_float32(tmp_path: Path) -> None:
    from inlay.models.torch import load_stage

    model_of("llama").bfloat16().save_pretrained(tmp_path)
    stage = load_stage(tmp_path)
    assert {parameter.dtype for parameter in stage.parameters()} == {torch.float32}
    assert stage.shape.layers[0].window == 0 and stage.shape.vocabulary == 31
