"""`inlay serve` with a split over two frameworks, through HTTP, with the openai client, until SIGTERM."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
from urllib.parse import urlsplit

import openai
import pytest
import zoo
from commands import alive, run_directories, serving, until

ROLES = ("--role", "prefill=cpu:0/openvino", "--role", "decode=cpu:1/onnxruntime")


@pytest.fixture(scope="module")
def served():
    with serving(str(zoo.DEMO_TARGET), *ROLES, "--name", "demo", "--context", "1024") as (facts, process):
        yield facts, process


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=served[0]["url"] + "/v1", api_key="none", max_retries=0) as it:
        yield it


def metric(url: str, pattern: str) -> float:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(pattern, line))


def test_a_streamed_chat_arrives_in_pieces_with_usage_and_equals_the_whole_answer(client) -> None:
    question = {
        "model": "demo",
        "messages": [{"role": "user", "content": "What does os.path.join do?"}],
        "max_tokens": 24,
        "temperature": 0,
        "seed": 1,
    }
    pieces, usage = [], None
    for chunk in client.chat.completions.create(**question, stream=True, stream_options={"include_usage": True}):
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        usage = chunk.usage or usage
    whole = client.chat.completions.create(**question)
    assert "".join(pieces) == whole.choices[0].message.content and len(pieces) > 3
    assert usage is not None and usage.completion_tokens == whole.usage.completion_tokens
    assert whole.model_extra["inlay"]["prefill"] == "cpu:0/openvino"
    assert whole.model_extra["inlay"]["decode"] == "cpu:1/onnxruntime"


def test_sampling_is_reproducible_by_seed_and_n_gives_different_texts(client) -> None:
    ask = {"model": "demo", "prompt": "def ", "max_tokens": 16, "temperature": 0.9}
    first, again, other = (client.completions.create(**ask, seed=seed).choices[0].text for seed in (1, 1, 2))
    assert first == again != other
    several = client.completions.create(**ask, seed=3, n=3)
    assert len({choice.text for choice in several.choices}) == 3
    assert several.usage.completion_tokens == 48


def test_the_memory_that_was_predicted_is_what_the_devices_allocated(served) -> None:
    facts = served[0]
    regions = [region for runner in facts["description"]["runners"] for region in runner["regions"]]
    assert {region["place"] for region in regions} == set(facts["predicted_memory"])
    for region in regions:
        predicted, allocated = facts["predicted_memory"][region["place"]], region["memory"]
        assert predicted["weights"] == allocated["weights"] > 0
        assert predicted["kv_pool"] == allocated["kv_pool"] + allocated["kv_pages"] > 0
        assert predicted["buffers"] > 0


def test_stop_strings_end_the_text_before_them(client) -> None:
    ask = {"model": "demo", "prompt": "import os\nimport ", "max_tokens": 48, "temperature": 0}
    text = client.completions.create(**ask).choices[0].text
    stop = text[5:8]
    cut = client.completions.create(**ask, stop=[stop]).choices[0]
    assert cut.text == text[: text.index(stop)] and cut.finish_reason == "stop"


def test_log_probabilities_come_with_the_tokens(client) -> None:
    answer = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    rows = answer.choices[0].logprobs.content
    assert rows and all(row.logprob <= 0 and len(row.top_logprobs) == 3 for row in rows)
    assert all(row.token == row.top_logprobs[0].token for row in rows)


def test_meters_show_prefill_on_one_framework_and_decode_on_the_other(client, served) -> None:
    client.completions.create(model="demo", prompt="import os\n" * 8, max_tokens=8)
    url = served[0]["url"]
    assert metric(url, r'inlay_tokens_total\{device="cpu:0",framework="openvino",phase="prefill"\}') > 0
    assert metric(url, r'inlay_tokens_total\{device="cpu:1",framework="onnxruntime",phase="decode"\}') > 0
    assert metric(url, r'inlay_tokens_total\{device="cpu:1",framework="onnxruntime",phase="prefill"\}') == 0
    assert metric(url, r'inlay_kv_transfer_bytes_total\{destination="cpu:1",source="cpu:0"\}') > 0
    assert metric(url, r"inlay_kv_recompute_total") == 0


def test_a_client_that_hangs_up_frees_its_slot(served) -> None:
    url = served[0]["url"]
    parts = urlsplit(url)
    body = json.dumps({"model": "demo", "prompt": "import", "max_tokens": 900, "stream": True, "ignore_eos": True}).encode()
    sockets = []
    for _ in range(8):
        sock = socket.create_connection((parts.hostname, parts.port), timeout=10)
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % len(body)
            + body
        )
        assert sock.recv(200).startswith(b"HTTP/1.1 200")
        sockets.append(sock)
    assert until(lambda: metric(url, r"vllm:num_requests_running") >= 1)
    for sock in sockets:
        sock.close()
    assert until(lambda: metric(url, r"vllm:num_requests_running") == 0, seconds=5)
    assert metric(url, r"vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b'{"model": "demo", "prompt": "x", "temperature": 9}', 400, "temperature"),
        (b'{"model": "other", "prompt": "x"}', 404, "other"),
        (json.dumps({"model": "demo", "prompt": "word " * 3000}).encode(), 400, "context"),
        (json.dumps({"model": "demo", "prompt": "x", "max_tokens": 5000}).encode(), 400, "context"),
        (json.dumps({"model": "demo", "prompt": [99999]}).encode(), 400, "vocabulary"),
        (
            json.dumps({"model": "demo", "prompt": "x", "inlay": {"decode": "cpu:0/openvino"}}).encode(),
            400,
            "cpu:1/onnxruntime",
        ),
    ],
)
def test_bad_requests_get_an_openai_error_that_names_the_fault_and_disturb_nobody(served, client, body, status, words) -> None:
    connection = http.client.HTTPConnection(urlsplit(served[0]["url"]).netloc, timeout=20)
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    connection.close()
    assert answer.status == status, error
    assert words in error["message"] and {"message", "type", "param", "code"} <= set(error)
    assert client.completions.create(model="demo", prompt="import", max_tokens=2).usage.completion_tokens == 2


def test_a_dead_device_turns_ready_false_and_sigterm_leaves_nothing_behind() -> None:
    before = run_directories()
    with serving(str(zoo.DEMO_TARGET), *ROLES, "--name", "demo", "--context", "256") as (facts, process):
        runners = facts["description"]["runners"]
        pids = [item["pid"] for item in facts["memory"] if item["name"] != "supervisor"]
        decode = next(item["regions"][0]["pid"] for item in runners if "decode" in item["roles"])
        url = facts["url"]
        with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as it:
            stream = it.completions.create(
                model="demo", prompt="import", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
            )
            next(iter(stream))
            os.kill(decode, signal.SIGKILL)
            with pytest.raises(openai.APIError, match=r"lost|device"):
                for _ in stream:
                    pass
        assert until(lambda: status(url, "/ready") == 503)
        assert status(url, "/live") == 200
    assert process.returncode == 0
    assert all(not alive(pid) for pid in pids)
    assert until(lambda: run_directories() <= before)


def status(url: str, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", path)
    found = connection.getresponse().status
    connection.close()
    return found
