"""Every role at once over HTTP, `contrary` among them: each answer says what was chosen and why, and does what it was asked."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from inlay import api
from inlay.specs.speculation import MODES

DEMO = Path(__file__).parents[2] / "demo"
PAGES, FOREIGN = "cpu:0/openvino", "cpu:1/contrary"
QUESTION = "What does os.path.join do? " * 12


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    wanted = api.deployment(
        DEMO / "target",
        roles=[f"prefill,decode={PAGES}:paged", f"prefill,decode={FOREIGN}", "draft=cpu:1/onnxruntime"],
        draft_model=DEMO / "draft",
        slots=4,
        context=512,
    )
    running = api.start(wanted, name="demo")
    try:
        yield api.open_gateway(running, host="127.0.0.1", port=0)
    finally:
        running.stop()


def ask(url: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 24, "temperature": 0} | fields
    status, text = fetch(url, "/v1/chat/completions", json.dumps(body))
    return status, json.loads(text)


def fetch(url: str, path: str, body: str | None = None) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)) as connection:
        connection.request("GET" if body is None else "POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_each_choice_is_told_with_its_reason_and_no_choice_changes_the_text(url: str) -> None:
    texts = set()
    for asked, way, mode in (
        ({}, None, None),
        ({"prefill": FOREIGN, "decode": PAGES, "speculation": "off"}, ("split", "part"), "off"),
        ({"prefill": PAGES, "decode": FOREIGN, "speculation": "off"}, ("split", "part"), "off"),
        ({"prefill": PAGES, "decode": PAGES, "speculation": "synchronous", "drafts": 2}, ("whole",), "synchronous"),
        ({"prefill": FOREIGN, "decode": FOREIGN, "speculation": "free", "drafts": 3}, ("whole",), "free"),
    ):
        status, answer = ask(url, inlay=asked, ignore_eos=True)
        assert status == 200, answer
        served = answer["inlay"]
        texts.add(answer["choices"][0]["message"]["content"])
        assert served["reason"] and served["speculation_reason"] and served["timing"]["total"] > 0
        if way is None:
            assert "predicted" in served["reason"] and "slowdown" in served["reason"]
            continue
        assert served["way"] in way and "as the request asked" in served["reason"]
        assert served["speculation"] == mode
        assert (mode == "off") or (mode in served["speculation_reason"] and "drafts kept" in served["speculation_reason"])
    assert len(texts) == 1


def test_a_mode_that_there_is_not_is_refused_with_those_there_are(url: str) -> None:
    status, answer = ask(url, inlay={"speculation": "fast"})
    assert status == 400 and "'fast'" in answer["error"]["message"]
    assert all(mode in answer["error"]["message"] for mode in MODES)
    status, answer = ask(url, inlay={"drafts": 0})
    assert status == 400 and "drafts" in answer["error"]["message"]
    status, answer = ask(url, inlay={"draft": "cpu:9/none"})
    assert status == 400 and "cpu:9/none" in answer["error"]["message"]


def test_the_meters_count_ways_and_modes(url: str) -> None:
    before, _ = counted(url), ask(url, inlay={"prefill": FOREIGN, "decode": FOREIGN, "speculation": "free"}, ignore_eos=True)
    ask(url, inlay={"prefill": PAGES, "decode": FOREIGN, "speculation": "ngram"}, ignore_eos=True)
    after = counted(url)
    gained = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}
    ways = {name: value for name, value in gained.items() if name.startswith("inlay_plan_requests_total")}
    assert sum(ways.values()) == 2.0 and ways['inlay_plan_requests_total{kind="whole"}'] == 1.0
    assert gained['inlay_spec_requests_total{mode="free",pair="cpu:1 > cpu:1"}'] == 1.0
    assert gained['inlay_spec_requests_total{mode="ngram",pair="own text > cpu:1"}'] == 1.0
    assert after['inlay_spec_mode{mode="free",pair="cpu:1 > cpu:1"}'] == 1.0


def counted(url: str) -> dict[str, float]:
    _, text = fetch(url, "/metrics")
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
