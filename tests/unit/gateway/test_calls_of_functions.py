"""Calls of functions on their way out: pieces in a stream, whole otherwise; and what a request becomes for the engine."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import openai
import pytest

from inlay.gateway import Event
from inlay.specs.generation import CallPiece, Constraint, Delta, Finished, Generate, Started, ToolUse

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
ASKED: dict[str, Any] = {"model": "tiny/model", "messages": [{"role": "user", "content": "go"}], "tools": [FUNCTION]}
PIECES = (
    (CallPiece(index=0, id="call_a", name="f", arguments='{"x'),),
    (CallPiece(index=0, arguments='": 1}'), CallPiece(index=1, id="call_b", name="g", arguments="{")),
    (CallPiece(index=1, arguments="}"),),
)


def says(text: str) -> Any:
    async def script(request: Generate) -> AsyncGenerator[Event, None]:
        yield Started(call=0, prompt_tokens=4, prefill="a", decode="a")
        yield Delta(call=0, index=0, text=text, tokens=(1,))
        for number, calls in enumerate(PIECES):
            yield Delta(call=0, index=0, text="", tokens=(number,), calls=calls)
        yield Delta(call=0, index=0, text="", finish_reason="tool_calls")
        yield Finished(call=0, prompt_tokens=4, completion_tokens=4)

    return script


def client_of(site: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=site.url + "/v1", api_key="x", max_retries=0, timeout=10)


@pytest.mark.parametrize(("text", "content"), [("", None), ("I look.", "I look.")])
def test_calls_are_put_together_in_a_whole_answer(serve, text, content) -> None:
    with serve(says(text)) as site, client_of(site) as client:
        choice = client.chat.completions.create(**ASKED).choices[0]
    assert choice.message.content == content and choice.finish_reason == "tool_calls"
    found = [(call.id, call.type, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert found == [("call_a", "function", "f", '{"x": 1}'), ("call_b", "function", "g", "{}")]


def test_a_stream_has_the_name_first_and_pieces_after_it(serve) -> None:
    with serve(says("")) as site, client_of(site) as client:
        deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**ASKED, stream=True)]
    pieces = [
        (piece.index, piece.id, piece.type, piece.function.name, piece.function.arguments)
        for delta in deltas
        for piece in delta.tool_calls or []
    ]
    assert pieces == [
        (0, "call_a", "function", "f", '{"x'),
        (0, None, None, None, '": 1}'),
        (1, "call_b", "function", "g", "{"),
        (1, None, None, None, "}"),
    ]


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, ToolUse(tools=(FUNCTION,))),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, ToolUse(tools=(FUNCTION,), parallel=False)),
        ({"tool_choice": "required"}, ToolUse(tools=(FUNCTION,), is_required=True)),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            ToolUse(tools=(FUNCTION,), is_required=True, function="f"),
        ),
        ({"tool_choice": "none"}, None),
        ({"tools": []}, None),
    ],
)
def test_what_the_engine_is_told_of_functions(site, fields, use) -> None:
    with client_of(site) as client:
        client.chat.completions.create(**ASKED | fields)
    assert site.upstream.requests[-1].tool_use == use


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint(kind="json_object", field="response_format")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"b": 1, "a": 2}}}},
            Constraint(kind="json", text='{"b":1,"a":2}', field="response_format"),
        ),
        ({"structured_outputs": {"json": {"enum": [1]}}}, Constraint(kind="json", text='{"enum":[1]}')),
        ({"structured_outputs": {"json": '{"enum": [1]}'}}, Constraint(kind="json", text='{"enum": [1]}')),
        (
            {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
            Constraint(kind="json_object", whitespace=""),
        ),
        (
            {"structured_outputs": {"json_object": True, "whitespace_pattern": " ?"}},
            Constraint(kind="json_object", whitespace=" ?"),
        ),
        ({"structured_outputs": {"regex": "a+"}}, Constraint(kind="regex", text="a+")),
        ({"structured_outputs": {"choice": ["é", "b"]}}, Constraint(kind="choice", text='["é","b"]')),
        ({"structured_outputs": {"grammar": "start: A"}}, Constraint(kind="grammar", text="start: A")),
    ],
)
def test_what_the_engine_is_told_of_constraints(site, fields, constraint) -> None:
    sock = site.send_json(
        "/v1/chat/completions", json.dumps({k: v for k, v in ASKED.items() if k != "tools"} | fields).encode()
    )
    assert sock.recv(20).startswith(b"HTTP/1.1 200")
    sock.close()
    assert site.upstream.requests[-1].parameters.constraint == constraint
