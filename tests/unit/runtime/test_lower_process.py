"""The compile process: one capture for all backends, progress and outcome in files, failures with backend and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inlay.errors import InputError, UnsupportedError
from inlay.runtime import lower as lower_module
from inlay.runtime.cache import Cache
from inlay.runtime.lower import lower_stage, main
from inlay.specs.artifact import LowerRequest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "llama"
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_second_lowering_only_looks(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []
    wanted = [("null", LowerRequest()), ("reference", LowerRequest())]
    first = lower_stage(model, wanted=wanted, cache=Cache(tmp_path), progress=events.append)
    done = [event["step"] for event in events if event["state"] == "done"]
    assert done == ["look up", "load", "capture", "weights", "lower null", "lower reference"]
    monkeypatch.setattr(lower_module, "load_stage", None)
    second = lower_stage(model, wanted=wanted, cache=Cache(tmp_path))
    assert [item.directory for item in second.artifacts] == [item.directory for item in first.artifacts]
    assert list(second.seconds) == ["look up"] and all(item.seconds == 0 for item in second.artifacts)


def test_the_process_writes_its_outcome_and_its_steps(model: Path, tmp_path: Path) -> None:
    config = {
        "model": str(model), "wanted": [["null", {"threads": 2}]], "cache": str(tmp_path / "cache"),
        "result": str(tmp_path / "result.json"), "progress": str(tmp_path / "steps.jsonl"),
    }  # fmt: skip
    assert main(config) == 0
    lowered = json.loads((tmp_path / "result.json").read_text())["lowered"]
    assert (
        Path(lowered["artifacts"][0]["directory"], "manifest.json").is_file()
        and Path(lowered["weights"], "weights.json").is_file()
    )
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert steps[0] == {"step": "look up", "state": "begun"} and steps[-1]["state"] == "done"


def test_a_failure_is_an_outcome_with_code_and_reason(model: Path, tmp_path: Path) -> None:
    config = {
        "model": str(model), "wanted": [["contrary", {}]], "cache": str(tmp_path / "cache"), "result": str(tmp_path / "r.json"),
    }  # fmt: skip
    assert main(config) == UnsupportedError.exit_code
    error = json.loads((tmp_path / "r.json").read_text())["error"]
    assert error["code"] == "unsupported" and "contrary runs declared sizes only" in error["message"]
    assert main({**config, "wanted": [["nobody", {}]]}) == InputError.exit_code
    assert "known" in json.loads((tmp_path / "r.json").read_text())["error"]["message"]
    assert main({**config, "model": str(tmp_path)}) == InputError.exit_code


def test_an_unknown_field_of_the_config_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="known fields: model, wanted, cache"):
        main({"modell": "x"})


def test_an_error_planted_in_a_framework_surfaces_and_nothing_else_runs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("planted at node aten.mm.default")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UnsupportedError, match=r"onnxruntime cannot lower the program: planted at node aten\.mm\.default"):
        lower_stage(model, wanted=[("onnxruntime", LowerRequest())], cache=Cache(tmp_path))
    assert list((tmp_path / "artifacts").iterdir()) == []
