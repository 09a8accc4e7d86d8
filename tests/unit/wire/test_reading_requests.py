from __future__ import annotations

import json
from typing import Any

import pytest

import inlay.wire
from inlay.errors import RequestError
from inlay.wire import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest, plain_messages, read_request

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "hello"}


def read(body: Any, form: Any = CompletionRequest) -> Any:
    return read_request(json.dumps(body).encode(), form)


def refusal(body: Any, form: Any = CompletionRequest) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read_request(body if isinstance(body, bytes) else json.dumps(body).encode(), form)
    assert caught.value.status == 400
    return caught.value


def test_the_face_exports_sorted_names_and_at_most_25() -> None:
    assert sorted(inlay.wire.__all__) == inlay.wire.__all__
    assert len(inlay.wire.__all__) <= 25
    assert all(hasattr(inlay.wire, name) for name in inlay.wire.__all__)


def test_every_honoured_completions_field_is_read() -> None:
    body = COMPLETION | {
        "max_tokens": 5,
        "min_tokens": 2,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": -1,
        "n": 2,
        "stop": "x",
        "seed": -3,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "ignore_eos": True,
        "logprobs": 0,
        "echo": True,
        "user": "u",
        "min_p": 0.1,
        "presence_penalty": -2,
        "frequency_penalty": 2.0,
        "repetition_penalty": 1.1,
        "logit_bias": {"50256": -100, "3": 2.5},
        "stop_token_ids": [1, 2],
        "response_format": {"type": "json_object"},
        "inlay": {"prefill": "a:0/x", "decode": None},
    }
    request, ignored = read(body)
    assert ignored == ()
    assert (request.token_budget, request.min_tokens, request.temperature, request.top_p) == (5, 2, 0.0, 0.5)
    assert (request.stops, request.seed, request.logprobs, request.echo) == (("x",), -3, 0, True)
    assert request.biases == {50256: -100, 3: 2.5} and request.stop_token_ids == [1, 2]
    assert request.includes_usage and request.counts_continuously
    assert request.inlay.prefill == "a:0/x" and request.inlay.decode is None


def test_null_is_the_same_as_leaving_a_field_out() -> None:
    names = [
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "n",
        "stop",
        "seed",
        "stream",
        "logprobs",
        "tools",
        "inlay",
        "best_of",
    ]
    assert read(COMPLETION | dict.fromkeys(names)) == read(COMPLETION)


def test_the_newer_name_of_the_token_limit_wins() -> None:
    request, _ = read(CHAT | {"max_tokens": 9, "max_completion_tokens": 4}, ChatRequest)
    assert request.token_budget == 4


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_a_prompt_is_text_or_ids_one_or_many(prompt: Any, expected: Any) -> None:
    request, _ = read(COMPLETION | {"prompt": prompt})
    assert request.prompts() == expected


@pytest.mark.parametrize(
    "prompt", [[], [[]], [1, "a"], ["a", [1]], [True], [-1], [2**31], [1.5], [[1], []], {}, 3, None, [None]]
)
def test_a_prompt_of_another_kind_is_refused_by_name(prompt: Any) -> None:
    assert refusal(COMPLETION | {"prompt": prompt}).param == "prompt"


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("n", 0, "0"),
        ("n", 17, "17"),
        ("n", True, "True"),
        ("stop", ["a"] * 17, "17"),
        ("stop", "", "''"),
        ("stop", ["ok", "x" * 257], "stop[1]"),
        ("logprobs", 21, "21"),
        ("max_tokens", -1, "-1"),
        ("max_tokens", "5", "'5'"),
        ("temperature", 2.1, "2.1"),
        ("temperature", -0.1, "-0.1"),
        ("top_p", 0, "0"),
        ("top_p", 1.01, "1.01"),
        ("top_k", -2, "-2"),
        ("seed", 2**63, str(2**63)),
        ("stream", "yes", "'yes'"),
        ("inlay", {"prefil": "a"}, "prefil"),
        ("inlay", {"prefill": 1}, "1"),
        ("min_tokens", 17, "17"),
        ("min_p", 1.1, "1.1"),
        ("min_p", -0.1, "-0.1"),
        ("presence_penalty", 2.1, "2.1"),
        ("frequency_penalty", -2.1, "-2.1"),
        ("repetition_penalty", 0, "0"),
        ("repetition_penalty", 10.5, "10.5"),
        ("logit_bias", {"7": 101}, "101"),
        ("logit_bias", {"7": -100.5}, "-100.5"),
        ("logit_bias", {"seven": 1}, "'seven'"),
        ("logit_bias", {"-7": 1}, "'-7'"),
        ("logit_bias", {"7": "1"}, "logit_bias"),
        ("stop_token_ids", [-1], "-1"),
        ("stop_token_ids", [1] * 129, "129"),
        ("response_format", {"type": "xml"}, "json_schema"),
        ("response_format", {"type": "json_schema"}, "schema"),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}, "schema"),
        ("structured_outputs", {}, "none"),
        ("structured_outputs", {"regex": "a", "choice": ["b"]}, "regex and choice"),
        ("structured_outputs", {"choice": []}, "0"),
        ("structured_outputs", {"regexp": "a"}, "regexp"),
    ],
)
def test_a_value_out_of_range_is_refused_with_field_value_and_expectation(field: str, value: Any, shown: str) -> None:
    error = refusal(COMPLETION | {"max_tokens": 10} | {field: value})
    assert error.param == field
    assert f"`{field}" in error.message and shown in error.message and "expected" in error.message


def test_a_constraint_is_asked_for_in_one_way() -> None:
    both = {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}
    assert refusal(COMPLETION | both).param == "structured_outputs"
    assert read(COMPLETION | both | {"response_format": {"type": "text"}})[0].structured_outputs.regex == "a"


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("fields", "param", "shown"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "function"),
        ({"tools": [{"type": "retrieval", "function": {"name": "f"}}]}, "tools", "`function`"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools", "'a b'"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 3}}]}, "tools", "3"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools", "2 functions named 'f'"),
        ({"tools": [FUNCTION] * 129}, "tools", "129"),
        ({"tool_choice": "required"}, "tool_choice", "required"),
        ({"tools": [FUNCTION], "tool_choice": "sometimes"}, "tool_choice", "auto"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function"}}, "tool_choice", "function"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "'g'"),
        ({"tools": [FUNCTION], "parallel_tool_calls": "no"}, "parallel_tool_calls", "'no'"),
    ],
)
def test_functions_that_do_not_fit_together_are_refused(fields: dict[str, Any], param: str, shown: str) -> None:
    error = refusal(CHAT | fields, ChatRequest)
    assert error.param == param and shown in error.message and "expected" in error.message


def test_completions_know_no_functions() -> None:
    assert refusal(COMPLETION | {"tools": [FUNCTION]}).code == "unsupported_parameter"
    assert refusal(COMPLETION | {"tool_choice": "required"}).code == "unsupported_parameter"


def test_calls_and_their_results_are_part_of_a_conversation() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "3"}]},
    ]
    request, ignored = read(CHAT | {"messages": messages, "tools": [FUNCTION]}, ChatRequest)
    assert ignored == ()
    assert plain_messages(request.messages) == (
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "call_1"},
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("best_of", 3),
        ("suffix", "end"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("prompt_logprobs", 1),
        ("reasoning_effort", "high"),
        ("guided_json", {}),
    ],
)
@pytest.mark.parametrize("form", [CompletionRequest, ChatRequest])
def test_a_known_field_that_would_change_the_tokens_is_refused_by_name(field: str, value: Any, form: Any) -> None:
    error = refusal((CHAT if form is ChatRequest else COMPLETION) | {"n": 2, field: value}, form)
    assert (error.param, error.code) == (field, "unsupported_parameter")


def test_the_same_fields_pass_with_a_value_that_changes_nothing() -> None:
    neutral = {
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "logit_bias": {},
        "presence_penalty": 0.0,
        "frequency_penalty": 0,
        "best_of": 1,
        "modalities": ["text"],
        "echo": False,
    }
    _, ignored = read(CHAT | neutral, ChatRequest)
    assert ignored == ()
    assert refusal(CHAT | {"echo": True}, ChatRequest).param == "echo"


def test_unknown_fields_are_ignored_and_named() -> None:
    _, ignored = read(COMPLETION | {"store": True, "zzz": {"a": 1}})
    assert ignored == ("store", "zzz")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"{} {}", b'{"model": NaN}', b'{"model": "\xff"}', b'{"model": "\\ud800"}']
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    assert refusal(body).code == "invalid_json"


@pytest.mark.parametrize("depth", [33, 500, 200_000])
def test_a_body_that_nests_too_deep_is_refused(depth: int) -> None:
    assert refusal(b'{"model":"m","prompt":"x","a":' + b"[" * depth + b"]" * depth + b"}").code == "invalid_json"


def test_a_missing_field_is_named() -> None:
    assert refusal({"prompt": "x"}).param == "model"
    assert refusal({"model": "m"}).param == "prompt"
    error = refusal({"model": "m", "messages": [{"role": "user"}]}, ChatRequest)
    assert error.param == "messages" and "content" in error.message


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "x"}] * 1025,
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}],
        [{"role": "assistant", "tool_calls": []}],
        [{"role": "user", "content": "x", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}],
        [{"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}}],
    ],
)
def test_messages_that_are_not_text_are_refused(messages: Any) -> None:
    error = refusal(CHAT | {"messages": messages}, ChatRequest)
    assert error.param == "messages" and "expected" in error.message


def test_messages_become_plain_text_turns() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": parts, "refusal": None}]
    request, _ = read(CHAT | {"messages": messages}, ChatRequest)
    assert plain_messages(request.messages) == (
        {"role": "system", "content": "s", "name": "n"},
        {"role": "user", "content": "a\nb"},
    )


def test_top_logprobs_needs_logprobs_and_stream_options_needs_stream() -> None:
    assert refusal(CHAT | {"top_logprobs": 2}, ChatRequest).param == "top_logprobs"
    assert read(CHAT | {"top_logprobs": 2, "logprobs": True}, ChatRequest)[0].top_logprobs == 2
    assert refusal(COMPLETION | {"stream_options": {"include_usage": True}}).param == "stream_options"


def test_tokenize_takes_a_prompt_or_messages_but_not_both() -> None:
    assert read({"prompt": ""}, TokenizeRequest)[0].prompt == ""
    assert refusal({}, TokenizeRequest).param == "prompt"
    assert refusal({"prompt": "a", "messages": CHAT["messages"]}, TokenizeRequest).param == "prompt"
    both = {"messages": CHAT["messages"], "add_special_tokens": False}
    assert refusal(both, TokenizeRequest).param == "add_special_tokens"
    assert refusal({"tokens": [-1]}, DetokenizeRequest).param == "tokens"
