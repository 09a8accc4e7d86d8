"""Statuses, headers and bytes that no client library would send or show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import inlay.gateway
from inlay.errors import InputError, RequestError
from inlay.gateway import KeyRing, make_app
from inlay.specs.generation import Delta, Failed, Finished, Generate, Started

COMPLETION = {"model": "tiny/model", "prompt": "x"}


def test_the_face_is_sorted() -> None:
    assert sorted(inlay.gateway.__all__) == inlay.gateway.__all__


def test_ignored_fields_are_named_in_a_header_that_cannot_be_broken(site: Any) -> None:
    body = COMPLETION | {"store": True, "a\r\nset-cookie: b": 1, "ü": 2}
    for stream in (False, True):
        reply = httpx.post(f"{site.url}/v1/completions", json=body | {"stream": stream})
        assert reply.status_code == 200
        assert reply.headers["x-inlay-ignored"] == "store, ?, ?"
        assert "set-cookie" not in reply.headers
    assert "x-inlay-ignored" not in httpx.post(f"{site.url}/v1/completions", json=COMPLETION).headers


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"[1]", "application/json; charset=utf-8", 400, "invalid_json"),
        (json.dumps(COMPLETION).encode(), "text/plain", 415, "unsupported_media_type"),
        (b"x" * 10_001, "application/json", 413, "request_too_large"),
    ],
)
def test_a_bad_body_has_its_status_in_openais_shape(
    serve: Callable[..., Any], quick_limits: Any, content: bytes, kind: str, status: int, code: str
) -> None:
    with serve(limits=quick_limits) as site:
        reply = httpx.post(f"{site.url}/v1/completions", content=content, headers={"content-type": kind})
        assert reply.status_code == status
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], error["type"]) == (code, "invalid_request_error")


def test_a_body_of_unknown_length_is_cut_at_the_cap(serve: Callable[..., Any], quick_limits: Any) -> None:
    def parts() -> Any:
        for _ in range(20):
            yield b"x" * 1000

    with serve(limits=quick_limits) as site:
        headers = {"content-type": "application/json"}
        assert httpx.post(f"{site.url}/v1/completions", content=parts(), headers=headers).status_code == 413


def test_a_body_that_never_arrives_is_given_up(serve: Callable[..., Any], quick_limits: Any) -> None:
    with serve(limits=quick_limits) as site, site.connect() as sock:
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        )
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_more_prompts_than_the_limit_are_refused(serve: Callable[..., Any], quick_limits: Any) -> None:
    with serve(limits=quick_limits) as site:
        reply = httpx.post(f"{site.url}/v1/completions", json=COMPLETION | {"prompt": ["x"] * 5})
        assert reply.status_code == 400 and reply.json()["error"]["param"] == "prompt"


def test_an_unknown_path_and_a_wrong_method_have_openais_shape(site: Any) -> None:
    missing = httpx.post(f"{site.url}/v1/embeddings", json={})
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    wrong = httpx.get(f"{site.url}/v1/completions")
    assert wrong.status_code == 405 and wrong.json()["error"]["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "POST"
    assert httpx.get(f"{site.url}/v1/models/").status_code == 404


def test_min_tokens_above_the_default_of_completions_is_refused(site: Any) -> None:
    reply = httpx.post(f"{site.url}/v1/completions", json=COMPLETION | {"min_tokens": 17})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "min_tokens"


def test_text_becomes_ids_and_back(site: Any) -> None:
    made = httpx.post(f"{site.url}/tokenize", json={"model": "tiny/model", "prompt": "ab"}).json()
    assert made == {"count": 2, "max_model_len": 2048, "tokens": [97, 98]}
    messages = [{"role": "user", "content": "c"}]
    assert httpx.post(f"{site.url}/tokenize", json={"messages": messages}).json()["tokens"] == [99]
    assert httpx.post(f"{site.url}/detokenize", json={"tokens": [97, 98]}).json() == {"prompt": "ab"}
    refused = httpx.post(f"{site.url}/detokenize", json={"tokens": [256]})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "tokens"
    assert httpx.post(f"{site.url}/tokenize", json={"model": "no", "prompt": "ab"}).status_code == 404


def test_special_tokens_are_put_around_a_text_or_not_and_messages_have_their_templates(site: Any) -> None:
    def tokens(**body: Any) -> Any:
        return httpx.post(f"{site.url}/tokenize", json=body)

    assert tokens(prompt="bos").json()["tokens"] == [0, 98]
    assert tokens(prompt="bos", add_special_tokens=True).json()["tokens"] == [0, 98]
    assert tokens(prompt="bos", add_special_tokens=False).json()["tokens"] == [98]
    refused = tokens(messages=[{"role": "user", "content": "c"}], add_special_tokens=False)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "add_special_tokens"


def test_what_a_client_asks_before_it_tokenises_or_measures_is_there(site: Any) -> None:
    found = httpx.get(f"{site.url}/tokenizer_info")
    assert found.json() == {"tokenizer_class": "Tiny", "eos_token": "</s>"}
    for path in ("/metrics", "/health", "/live", "/ready", "/version", "/v1/models"):
        reply = httpx.head(f"{site.url}{path}")
        assert (reply.status_code, reply.content) == (200, b""), path


def test_probes_tell_ready_from_alive(site: Any) -> None:
    for path in ("/health", "/ready", "/live"):
        assert httpx.get(site.url + path).status_code == 200
    site.upstream.reason = "no living runner for decode"
    reply = httpx.get(f"{site.url}/ready")
    assert reply.status_code == 503 and reply.json() == {"ready": False, "reason": "no living runner for decode"}
    assert httpx.get(f"{site.url}/health").status_code == 503
    assert httpx.get(f"{site.url}/live").status_code == 200


def test_a_lost_engine_is_a_503_and_its_meters_are_missing(site: Any) -> None:
    site.upstream.lost = RequestError("the engine is lost", code="engine_lost", status=503)
    reply = httpx.post(f"{site.url}/v1/completions", json=COMPLETION)
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "engine_lost"
    assert reply.headers["retry-after"] == "1"
    text = httpx.get(f"{site.url}/metrics").text
    assert "# the upstream's meters are missing: the engine is lost" in text
    assert list(text_string_to_metric_families(text))


def test_metrics_join_both_and_answer_head(site: Any) -> None:
    httpx.get(f"{site.url}/nowhere/at/all")
    httpx.post(f"{site.url}/v1/completions", json=COMPLETION)
    reply = httpx.get(f"{site.url}/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }
    assert values[("inlay_http_requests_total", "404", "other")] == 1
    assert values[("inlay_http_requests_total", "/v1/completions", "200")] == 1
    assert values[("vllm:num_requests_running",)] == 2
    head = httpx.head(f"{site.url}/metrics")
    assert head.status_code == 200 and head.content == b""


def test_version_is_the_packages(site: Any) -> None:
    assert httpx.get(f"{site.url}/version").json() == {"version": "0.1.0"}


def test_with_keys_every_route_but_the_probes_needs_one(serve: Callable[..., Any]) -> None:
    digest = "sha256:" + "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9"  # of "bob"
    with serve(keys=["alice", digest]) as site:
        for path in ("/v1/models", "/metrics", "/version", "/nowhere"):
            refused = httpx.get(site.url + path)
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
            assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/ready", "/live"):
            assert httpx.get(site.url + path).status_code == 200
        for value in ("Bearer carol", "Basic alice", "alice", "Bearer alice bob", "bearer", f"Bearer {digest}"):
            assert httpx.get(f"{site.url}/v1/models", headers={"authorization": value}).status_code == 401
        tenants = []
        for key in ("alice", "bob", "bob"):
            reply = httpx.post(f"{site.url}/v1/completions", json=COMPLETION, headers={"authorization": f"Bearer {key}"})
            assert reply.status_code == 200
            tenants.append(site.upstream.requests[-1].tenant)
        assert tenants[1] == tenants[2] == "81b637d8fcd2c6da" != tenants[0]


def test_metrics_can_be_opened_alone(serve: Callable[..., Any]) -> None:
    with serve(keys=["alice"], metrics_open=True) as site:
        assert httpx.get(f"{site.url}/metrics").status_code == 200
        assert httpx.get(f"{site.url}/version").status_code == 401


def test_keys_are_kept_as_digests_only() -> None:
    ring = KeyRing(["very-secret-key"])
    assert "very-secret-key" not in repr(vars(ring))
    assert ring and not KeyRing()


@pytest.mark.parametrize("key", ["", "  ", "sha256:", "sha256:zz", "sha256:" + "0" * 63])
def test_an_unusable_key_is_an_input_error(key: str, scripts: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        KeyRing([key])
    with pytest.raises(InputError):
        make_app(None, keys=[key])  # type: ignore[arg-type]


def events_of(text: str) -> list[str]:
    assert text.endswith("\n\n")
    return text[:-2].split("\n\n")


def test_a_stream_is_data_lines_that_end_with_done(site: Any) -> None:
    reply = httpx.post(f"{site.url}/v1/completions", json=COMPLETION | {"stream": True})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = events_of(reply.text)
    assert events[-1] == "data: [DONE]"
    assert [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-1]] == [
        "one",
        " two",
        " three",
        "",
    ]


async def breaks_late(request: Generate) -> AsyncGenerator[Any, None]:
    yield Started(call=0, prompt_tokens=1, prefill="a", decode="b")
    yield Delta(call=0, index=0, text="one", tokens=(1,))
    await asyncio.sleep(0.1)
    yield Failed(call=0, status=500, code="device_lost", message="lost")


def test_an_error_after_the_first_byte_closes_without_done(serve: Callable[..., Any]) -> None:
    with serve(breaks_late) as site:
        reply = httpx.post(f"{site.url}/v1/completions", json=COMPLETION | {"stream": True})
        assert reply.status_code == 200
        events = events_of(reply.text)
        assert json.loads(events[-1].removeprefix("data: ")) == {
            "error": {"message": "lost", "type": "server_error", "param": None, "code": "device_lost"}
        }
        assert len(events) == 2


@pytest.mark.parametrize("script", ["stays_silent", "is_queued"])
def test_a_silent_stream_carries_pings(serve: Callable[..., Any], scripts: Any, quick_limits: Any, script: str) -> None:
    with (
        serve(scripts[script], limits=quick_limits) as site,
        httpx.stream("POST", f"{site.url}/v1/completions", json=COMPLETION | {"stream": True}) as reply,
    ):
        text = ""
        for part in reply.iter_text():
            text += part
            if text.count(": ping\n\n") == 3:
                break
        assert text == ": ping\n\n" * 3


async def all_at_once(request: Generate) -> AsyncGenerator[Any, None]:
    yield Started(call=0, prompt_tokens=1, prefill="a", decode="b")
    for i in range(50):
        yield Delta(call=0, index=0, text="x", tokens=(i,))
    yield Delta(call=0, index=0, text="", finish_reason="length")
    yield Finished(call=0, prompt_tokens=1, completion_tokens=50)


def test_tokens_that_are_ready_together_go_in_one_write(serve: Callable[..., Any]) -> None:
    with serve(all_at_once) as site:
        body = json.dumps(COMPLETION | {"stream": True}).encode()
        with site.send_json("/v1/completions", body) as sock:
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += sock.recv(65536)
        chunks = received.split(b"\r\n\r\n", 1)[1]
        assert received.count(b'"text":"x"') == 50
        assert chunks.count(b"\r\ndata: ") == 1, "one HTTP chunk begins with data"
