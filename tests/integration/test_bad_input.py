"""What a person can get wrong before anything runs: exit code, the value, the expectation, a hint, nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import zoo
from commands import run, run_directories


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the demo target to spoil."""
    return Path(shutil.copytree(zoo.DEMO_TARGET, tmp_path / "model"))


def refused(*arguments: str, words: list[str], code: int = 2) -> None:
    before = run_directories()
    found = run("serve", "--port", "0", *arguments)
    assert found.returncode == code, found.stderr
    assert found.stdout == ""
    assert "error: " in found.stderr and "hint: " in found.stderr and "Traceback" not in found.stderr, found.stderr
    for word in words:
        assert word in found.stderr, found.stderr
    assert run_directories() <= before


def test_a_folder_without_config(model) -> None:
    (model / "config.json").unlink()
    refused(str(model), words=["config.json", str(model)])


def test_a_folder_that_is_not_there(tmp_path) -> None:
    refused(str(tmp_path / "nothing"), words=["nothing"])


def test_a_truncated_checkpoint(model) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(str(model), words=["model.safetensors"])


def test_a_missing_shard(model) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {
        "weight_map": {
            "model.norm.weight": "model-00001-of-00002.safetensors",
            "lm_head.weight": "model-00002-of-00002.safetensors",
        }
    }
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(str(model), words=["model-00002-of-00002.safetensors"])


def test_a_tokenizer_that_does_not_fit_the_vocabulary(model) -> None:
    config = json.loads((model / "config.json").read_text())
    config["vocab_size"] = 2048
    (model / "config.json").write_text(json.dumps(config))
    refused(str(model), words=["4095", "2048"])


def test_remote_code_and_quantised_checkpoints_are_refused_by_name(model) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Model"}}))
    refused(str(model), words=["auto_map"], code=3)
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    refused(str(model), words=["gptq"], code=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devices: {'cpu:0': {node: local, coers: [0]}}\nnodes: {local: {}}\n", ["coers", "cores"]),
        (
            "nodes: {local: {}}\ndevices: {'cpu:0': {node: local, cores: [0]}, 'cpu:1': {node: local, cores: [0]}}\n"
            "links: [{ends: ['cpu:0', 'cpu:1'], bandwidth: -5 GB/s, latency: 1 us}]\n",
            ["-5 GB"],
        ),
        ("nodes: {local: {}}\ndevices: {'cpu:0': {node: local, cores: [4711]}}\n", ["4711"]),
        ("nodes: {local: {}}\ndevices: {'cpu:0': {node: local, cores: [0], memory: 20 MiB}}\n", ["20.0 MiB", "weights"]),
    ],
)
def test_a_cluster_file_with_a_fault(tmp_path, text, words) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    refused(str(zoo.DEMO_TARGET), "--cluster", str(file), words=words)


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("prefill=cpu:77/openvino", ["cpu:77"]),
        ("prefill=cpu:0/tensorrt", ["tensorrt", "openvino"]),
        ("swim=cpu:0/openvino", ["swim", "prefill"]),
        ("prefill=cpu:0/openvino", ["decode"]),
    ],
)
def test_a_role_that_cannot_be(role, words) -> None:
    refused(str(zoo.DEMO_TARGET), "--role", role, words=words)


def test_a_port_that_is_taken_and_a_context_beyond_the_model() -> None:
    refused(str(zoo.DEMO_TARGET), "--context", "5000", words=["5000", "1024"])


def test_devices_and_generate_speak_json() -> None:
    found = json.loads(run("devices", "--json").stdout)
    assert {item["backend"] for item in found["backends"]} >= {"reference", "null", "contrary", "openvino", "onnxruntime"}
    lines = run("generate", str(zoo.DEMO_TARGET), "import os", "def main(", "--max-tokens", "4", "--json").stdout.splitlines()
    assert [len(json.loads(line)["tokens"]) for line in lines] == [4, 4]
