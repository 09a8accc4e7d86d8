"""`inlay bench` and the openai package's example script against a real `inlay serve`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import zoo
from commands import ENVIRONMENT, INLAY, run, serving, until

from inlay.telemetry import sums

ROLES = ("--role", "prefill=cpu:0/openvino", "--role", "decode=cpu:1/onnxruntime")
EXAMPLES = Path(__file__).parents[2] / "examples" / "clients"


@pytest.fixture(scope="module")
def url():
    with serving(str(zoo.DEMO_TARGET), *ROLES, "--name", "demo", "--context", "1024") as (facts, _):
        yield facts["url"]


def test_every_token_is_counted_and_every_figure_there(url, tmp_path) -> None:
    output, html = tmp_path / "result.json", tmp_path / "page.html"
    done = run(
        *("bench", url, "--concurrency", "1,3", "--requests", "6", "--prompt-tokens", "40", "--output-tokens", "12"),
        *("--goodput", "ttft:60000,tpot:60000", "--key", "secret", "-o", str(output), "--html", str(html), "--json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [level["load"]["value"] for level in found["levels"]] == [1, 3]
    for level in found["levels"]:
        figures = level["summary"]
        assert (figures["completed"], figures["errors"], figures["output_tokens"]) == (6, {}, 72)
        assert level["server"]["generated"] == 72
        assert figures["goodput_share"] == 1.0 and figures["counted_by_chunks"] == 0
        assert figures["ttft"]["count"] == figures["tpot"]["count"] == 6
        assert figures["prompt_tokens"] == pytest.approx(6 * 40, rel=0.2)
    meters = httpx.get(f"{url}/metrics").text
    assert re.search(r'inlay_phase_seconds_count{device="cpu:1",phase="decode"} [1-9]', meters)
    assert "secret" not in output.read_text() and "secret" not in done.stdout
    assert found["facts"]["hardware"] and len(json.loads(output.read_text())["levels"][0]["requests"]) == 6
    drawn = run("bench", "--plot", str(output), str(output), "-o", str(html))
    assert drawn.returncode == 0 and html.read_text().count("<circle") == 4


def test_token_ids_give_prompts_of_exact_length_and_a_rate_its_number(url) -> None:
    words = ("--rate", "20", "--requests", "10", "--endpoint", "completions", "--prompts", "ids", "--prompt-tokens", "33")
    done = run("bench", url + "/v1", *words, "--output-tokens", "5", "--json")
    figures = json.loads(done.stdout)["levels"][0]["summary"]
    assert (figures["completed"], figures["output_tokens"]) == (10, 50)
    assert figures["prompt_tokens"] == 330


def answered(url: str) -> float:
    """Choices that the server has completed."""
    return sums(httpx.get(f"{url}/metrics").text).get("vllm:request_success", 0.0)


def test_an_interrupt_gives_what_there_is(url, tmp_path) -> None:
    output = tmp_path / "result.json"
    process = subprocess.Popen(
        [*INLAY, "bench", url, "--seconds", "60", "--output-tokens", "4", "-o", str(output), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stderr is not None
    while "warming up" not in process.stderr.readline():
        assert process.poll() is None
    before = answered(url)
    assert until(lambda: answered(url) >= before + 5, seconds=60)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    found = json.loads(out)
    assert found["interrupted"] and found["levels"][0]["interrupted"]
    assert found["levels"][0]["summary"]["completed"] >= 1
    assert json.loads(output.read_text())["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://127.0.0.1:9"], "cannot be reached"),
        (["ftp://x"], "expected both"),
        (["URL", "--model", "nobody"], "404.*nobody"),
        (["URL", "--rate", "2", "--concurrency", "2"], "--concurrency and --rate are given"),
        (["URL", "--concurrency", "0"], "concurrency is '0'"),
        (["URL", "--concurrency", "1.5"], "no whole number"),
        (["URL", "--extra", "[]"], "expected a JSON object"),
        (["URL", "--prompts", "ids"], "chat does not take"),
        (["URL", "--prompts", "missing.jsonl"], "cannot be read"),
        (["URL", "--goodput", "x:1"], "budget"),
        (["URL", "--header", "x-slo"], "no NAME:VALUE"),
        (["URL", "--header", "a:b\r\nc: d"], "no NAME:VALUE"),
        (["URL", "--requests", "0"], "requests is 0, expected at least 1"),
        (["URL", "--seconds", "-1"], "seconds is -1"),
        (["URL", "--rate", "auto"], "auto without budgets"),
        (["URL", "--rate", "auto", "--goodput", "ttft:100", "--attain", "2"], "attain is 2"),
        (["URL", "--sessions", "2"], "expected a --trace"),
        (["URL", "-o", "missing/result.json"], "there is no folder missing"),
        (["--plot", "missing.json", "-o", "x.html"], "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_a_hint_and_no_table(url, arguments, words) -> None:
    done = run("bench", *(url if item == "URL" else item for item in arguments))
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] and [line for line in lines if line.startswith("hint: ")]
    assert re.search(words, done.stderr), done.stderr


def test_the_openai_package_is_served_unmodified(url) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "openai_python.py"), url], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert saw["stream_equals_whole"] and saw["stream_pieces"] > 5
    assert (saw["choices_of_token_ids"], saw["completion_tokens"]) == (2, 48)
    assert saw["unknown_model"] == "404 model_not_found"


def test_a_client_that_tokenises_by_itself_finds_what_it_needs(url) -> None:
    facts = httpx.get(f"{url}/tokenizer_info").json()
    assert facts["eos_token"] == "<|end|>" and "<|assistant|>" in facts["chat_template"]
    bare = httpx.post(f"{url}/tokenize", json={"prompt": "import os", "add_special_tokens": False}).json()["tokens"]
    assert httpx.post(f"{url}/tokenize", json={"prompt": "import os"}).json()["tokens"] == [0, *bare]
