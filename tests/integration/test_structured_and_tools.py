"""Structured output, functions and sampling options, served over two frameworks, asked for with the openai client."""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from typing import Any, Literal
from urllib.parse import urlsplit

import openai
import pydantic
import pytest
import zoo
from commands import serving
from openai.types.chat import ChatCompletion

pytest.importorskip("llguidance")
ROLES = ("--role", "prefill=cpu:0/openvino", "--role", "decode=cpu:1/onnxruntime")
SEEDS = range(20)


class Pet(pydantic.BaseModel):
    """A nested part, by reference."""

    model_config = pydantic.ConfigDict(extra="forbid")
    kind: Literal["cat", "dog"]
    age: int = pydantic.Field(ge=0, le=30)


class Person(pydantic.BaseModel):
    """What the answers must be."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=12)
    height: float | None
    pets: list[Pet] = pydantic.Field(max_length=2)


class Weather(pydantic.BaseModel):
    """The arguments of a function."""

    model_config = pydantic.ConfigDict(extra="forbid")
    city: str = pydantic.Field(max_length=10)
    days: int = pydantic.Field(ge=1, le=9)


TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": Weather.model_json_schema()}},
    {"type": "function", "function": {"name": "now", "description": "The time of day"}},
]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
QUESTION = [{"role": "user", "content": "What is the weather?"}]
LETTERS = {"regex": "[a-z ]+"}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": Person.model_json_schema()}}


@pytest.fixture(scope="module")
def url():
    with serving(str(zoo.DEMO_TARGET), *ROLES, "--name", "demo", "--context", "1024") as (facts, _):
        yield facts["url"]


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120) as it:
        yield it


def chat(client: openai.OpenAI, **options: Any) -> ChatCompletion:
    return client.chat.completions.create(
        **{"model": "demo", "messages": QUESTION, "temperature": 1, "max_tokens": 400} | options
    )


def streamed(client: openai.OpenAI, **options: Any) -> tuple[str, list[tuple[str, str]], str | None]:
    """Text, calls and finish reason of choice 0, put together as a client does."""
    text, calls, reason = "", {}, None
    asked = {"model": "demo", "messages": QUESTION, "temperature": 1, "max_tokens": 400, "stream": True} | options
    for chunk in client.chat.completions.create(**asked):
        for choice in chunk.choices:
            if choice.index:
                continue
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for piece in choice.delta.tool_calls or []:
                if piece.index not in calls:
                    assert piece.id and piece.function.name, "the name comes first"
                    calls[piece.index] = [piece.function.name, ""]
                calls[piece.index][1] += piece.function.arguments or ""
    return text, [(name, told) for name, told in calls.values()], reason


def whole(answer: ChatCompletion) -> tuple[str, list[tuple[str, str]], str | None]:
    choice = answer.choices[0]
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
    return choice.message.content or "", calls, choice.finish_reason


def test_answers_of_a_schema_fit_it_whatever_the_seed(client) -> None:
    texts = []
    for seed in SEEDS:
        answer = chat(client, response_format=FORMAT, seed=seed)
        assert answer.choices[0].finish_reason == "stop"
        Person.model_validate_json(answer.choices[0].message.content, strict=True)
        texts.append(answer.choices[0].message.content)
    assert len(set(texts)) > 10
    for seed in range(3):  # nothing bounds these, so some do not end in time
        anything = chat(client, response_format={"type": "json_object"}, seed=seed).choices[0]
        assert anything.message.content.startswith("{")
        assert anything.finish_reason == "length" or isinstance(json.loads(anything.message.content), dict)


def test_the_clients_own_parsing_takes_the_answers(client) -> None:
    found = client.chat.completions.parse(model="demo", messages=QUESTION, response_format=Person, max_tokens=400, seed=1)
    assert isinstance(found.choices[0].message.parsed, Person)
    tool = openai.pydantic_function_tool(Weather, name="get_weather")
    with client.chat.completions.stream(
        model="demo", messages=QUESTION, tools=[tool], tool_choice="required", max_tokens=400, seed=2
    ) as events:
        kinds = [event.type for event in events]
        last = events.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds and kinds.count("tool_calls.function.arguments.done") >= 1
    assert isinstance(last.choices[0].message.tool_calls[0].function.parsed_arguments, Weather)


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[a-c]{3}x+y"}, "[a-c]{3}x+y"),
        ({"choice": ["yes", "no", "maybe so"]}, "yes|no|maybe so"),
        ({"grammar": 'root ::= "a" ("b" | "c") "d"'}, "a(b|c)d"),
        ({"grammar": 'start: "x = " /[0-9]{2,4}/ "\\n"'}, "x = [0-9]{2,4}\n"),
        (
            {"json": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3}},
            r"\[\s*[12](,\s*[12]){1,2}\s*\]",
        ),
    ],
)
def test_the_extensions_hold_for_completions(client, wanted, pattern) -> None:
    for seed in range(4):
        asked = {"model": "demo", "prompt": "x = ", "max_tokens": 60, "temperature": 1, "seed": seed, "logprobs": 1}
        answer = client.completions.create(**asked, extra_body={"structured_outputs": wanted}).choices[0]
        assert re.fullmatch(pattern, answer.text), answer.text
        assert answer.finish_reason == "stop" and answer.logprobs is not None


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("parallel", [True, False])
def test_a_forced_call_has_arguments_that_fit(client, choice, parallel) -> None:
    for seed in range(5):
        answer = chat(client, tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel, seed=seed, max_tokens=600)
        message = answer.choices[0].message
        assert answer.choices[0].finish_reason == "tool_calls" and message.content is None
        if not parallel or choice is NAMED:
            assert len(message.tool_calls) == 1
        for call in message.tool_calls:
            assert call.type == "function" and call.id.startswith("call_")
            if call.function.name == "get_weather":
                Weather.model_validate_json(call.function.arguments, strict=True)
            else:
                assert choice is not NAMED and json.loads(call.function.arguments) == {}


@pytest.mark.parametrize(
    "options",
    [
        {"response_format": FORMAT, "seed": 3},
        {"tools": TOOLS, "tool_choice": "required", "seed": 4, "max_tokens": 60},
        {"tools": TOOLS, "tool_choice": NAMED, "seed": 5},
        {"tools": TOOLS, "seed": 6, "max_tokens": 24},
        {"seed": 7, "n": 3, "presence_penalty": 1.5, "frequency_penalty": 0.5, "max_tokens": 24, "logprobs": True},
        {"seed": 8, "max_tokens": 24, "extra_body": {"min_p": 0.05, "repetition_penalty": 1.3, "structured_outputs": LETTERS}},
    ],
    ids=["schema", "required", "named", "auto", "penalties", "regex"],
)
def test_streamed_equals_not_streamed(client, options) -> None:
    assert streamed(client, **options) == whole(chat(client, **options))


def test_functions_and_their_results_are_part_of_the_conversation(client) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome", "days": 2}'}}
    history = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = chat(client, messages=history, tools=TOOLS, max_tokens=8, seed=1)
    bare = chat(client, messages=[*QUESTION, {"role": "assistant", "content": "x"}, *QUESTION], max_tokens=8, seed=1)
    assert answer.usage.prompt_tokens > bare.usage.prompt_tokens + 100
    none = chat(client, messages=history, tools=TOOLS, tool_choice="none", max_tokens=8, seed=1)
    assert none.usage.prompt_tokens < answer.usage.prompt_tokens - 50


def test_biases_penalties_and_min_p_change_the_text_as_they_say(client) -> None:
    asked = {"model": "demo", "prompt": "import os\nimport ", "max_tokens": 48, "temperature": 0, "logprobs": 0}

    def tokens(**options: Any) -> list[str]:
        return list(client.completions.create(**asked | options).choices[0].logprobs.tokens)

    plain = tokens()
    _, count = Counter(plain).most_common(1)[0]
    assert count > 3
    penalised = tokens(frequency_penalty=2.0, presence_penalty=2.0)
    assert max(Counter(penalised).values()) < count
    assert max(Counter(tokens(extra_body={"repetition_penalty": 1.8})).values()) < count
    assert tokens(logit_bias={"500": 100}) == [tokens(logit_bias={"500": 100})[0]] * 48
    greedy = tokens(temperature=2.0, seed=5, extra_body={"min_p": 1.0})
    assert greedy == plain != tokens(temperature=2.0, seed=5)


def test_stops_wait_for_min_tokens_and_ids_stop_as_texts_do(client) -> None:
    asked = {"model": "demo", "prompt": "import os\nimport ", "max_tokens": 40, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text
    cut = client.completions.create(**asked, stop=["\n"]).choices[0]
    assert cut.text == text[: text.index("\n")] and cut.finish_reason == "stop"
    late = client.completions.create(**asked, stop=["\n"], extra_body={"min_tokens": 20})
    assert late.choices[0].text.count("\n") > 0 and late.usage.completion_tokens > 20
    assert text.startswith(late.choices[0].text)
    connection = http.client.HTTPConnection(urlsplit(str(client.base_url)).netloc, timeout=20)
    connection.request("POST", "/tokenize", json.dumps({"prompt": "\n"}), {"content-type": "application/json"})
    newline = json.loads(connection.getresponse().read())["tokens"][-1]
    connection.close()
    by_id = client.completions.create(**asked, extra_body={"stop_token_ids": [newline]}).choices[0]
    assert by_id.finish_reason == "stop" and text.startswith(by_id.text) and "\n" not in by_id.text


def test_log_likelihoods_as_lm_eval_asks_for_them(client) -> None:
    prompts = [[0, 500, 600, 700], [0, *range(300, 450)], [9, 10]]
    for budget in (0, 1):
        answer = client.completions.create(
            model="demo", prompt=prompts, max_tokens=budget, temperature=0, echo=True, logprobs=1, seed=1
        )
        assert answer.usage.completion_tokens == budget * len(prompts)
        for prompt, choice in zip(prompts, answer.choices, strict=True):
            rows = choice.logprobs
            assert len(rows.tokens) == len(rows.token_logprobs) == len(prompt) + budget
            assert rows.token_logprobs[0] is None and rows.top_logprobs[0] is None
            for logprob, top in zip(rows.token_logprobs[1:], rows.top_logprobs[1:], strict=True):
                assert logprob <= max(top.values()) <= 0 and logprob in top.values()
        if budget:
            again = client.completions.create(
                model="demo", prompt=prompts[1], max_tokens=1, echo=True, logprobs=1, temperature=0
            )
            assert again.choices[0].logprobs.token_logprobs == pytest.approx(
                answer.choices[1].logprobs.token_logprobs, abs=1e-4
            )


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("completions", {"structured_outputs": {"regex": "("}}, 400, "regular expression"),
        ("completions", {"structured_outputs": {"grammar": "nonsense"}}, 400, "grammar"),
        ("completions", {"structured_outputs": {"json": "{"}}, 400, "JSON schema"),
        ("completions", {"structured_outputs": {"regex": "a" * 9000}}, 400, "8192"),
        ("completions", {"logit_bias": {"4096": 1}}, 400, "4095"),
        ("completions", {"stop_token_ids": [5000]}, 400, "4095"),
        ("completions", {"presence_penalty": 3}, 400, "3"),
        ("completions", {"tools": TOOLS}, 400, "tools"),
        (
            "chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": []}}}},
            400,
            "Unsatisfiable",
        ),
        ("chat/completions", {"tools": TOOLS, "tool_choice": "required", "response_format": FORMAT}, 400, "tool_choice"),
        ("chat/completions", {"tools": TOOLS, "tool_choice": NAMED | {"function": {"name": "no"}}}, 400, "'no'"),
    ],
)
def test_what_cannot_be_done_is_refused_and_disturbs_nobody(url, client, path, fields, status, words) -> None:
    steady = {"model": "demo", "prompt": "import ", "max_tokens": 24, "temperature": 0, "stream": True}
    pieces = client.completions.create(**steady)
    first = next(iter(pieces)).choices[0].text
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    body = {"model": "demo", "max_tokens": 4} | ({"prompt": "x"} if path == "completions" else {"messages": QUESTION}) | fields
    connection.request("POST", f"/v1/{path}", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    connection.close()
    assert answer.status == status and words in error["message"], error
    text = first + "".join(choice.text for chunk in pieces for choice in chunk.choices)
    assert text == client.completions.create(**steady | {"stream": False}).choices[0].text


def test_unknown_fields_are_named_in_a_header(client) -> None:
    raw = client.completions.with_raw_response.create(
        model="demo", prompt="x", max_tokens=1, extra_body={"zzz": 1, "store": True}
    )
    assert raw.headers["x-inlay-ignored"] == "zzz, store"
