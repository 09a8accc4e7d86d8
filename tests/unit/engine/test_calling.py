"""The grammars behind tool_choice and strict, as the library takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inlay.engine.calling import calling_constraint
from inlay.engine.grammar import GrammarCompiler
from inlay.engine.tools import ToolReader
from inlay.errors import RequestError
from inlay.models import CallFormat, read_tokenizer
from inlay.specs.generation import Constraint, ToolUse

pytest.importorskip("llguidance")
TOKENIZER = read_tokenizer(Path(__file__).parents[3] / "demo" / "target")
COMPILER = GrammarCompiler(TOKENIZER, vocabulary=4096, ends=(1, 2))
TAGGED, BARE = CallFormat(), CallFormat(opening="", closing="", key="parameters")
WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"city": {"enum": ["Rome", "Oslo"]}},
    },
}
NOW = {"name": "now"}
ROME = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
PARIS = '{"name": "get_weather", "arguments": {"city": "Paris"}}'


def use(*functions: dict[str, Any], **options: Any) -> ToolUse:
    return ToolUse(tools=tuple({"type": "function", "function": item} for item in functions), **options)


def tagged(*calls: str) -> str:
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)


def takes(constraint: Constraint | None, text: str) -> bool:
    assert constraint is not None
    matcher = COMPILER.compile(constraint)
    for token in TOKENIZER.encode(text, add_special=False):
        if not matcher.allows(token):
            return False
        matcher.accept(token)
    return bool(matcher.mask()[0] & 2)


@pytest.mark.parametrize(
    ("options", "text", "fits"),
    [
        ({}, tagged(ROME), True),
        ({}, tagged(PARIS), False),
        ({}, tagged('{"name": "now", "arguments": {}}'), True),
        ({}, tagged('{"name": "now", "arguments": {"x": 1}}'), False),
        ({}, tagged(ROME, ROME), True),
        ({}, "Hello", False),
        ({}, "", False),
        ({"parallel": False}, tagged(ROME, ROME), False),
        ({"function": "now"}, tagged(ROME), False),
        ({"function": "get_weather"}, tagged(ROME), True),
        ({"function": "get_weather"}, tagged(ROME, ROME), False),
    ],
)
def test_a_forced_call_fits_a_function_and_is_read_back(options, text, fits) -> None:
    constraint = calling_constraint(use(WEATHER, NOW, is_required=True, **options), TAGGED, answer=None)
    assert takes(constraint, text) is fits
    if fits:
        reader = ToolReader(TAGGED)
        names = [piece.name for piece in reader.feed(text).calls if piece.name]
        assert len(names) == text.count("<tool_call>") and set(names) <= {"get_weather", "now"}


def test_a_bare_call_is_forced_in_its_own_spelling() -> None:
    constraint = calling_constraint(use(WEATHER, is_required=True), BARE, answer=None)
    call = '{"name": "get_weather", "parameters": {"city": "Oslo"}}'
    assert takes(constraint, call) and takes(constraint, f"{call}; {call}") and not takes(constraint, ROME)


def test_where_the_choice_is_the_models_only_strict_functions_constrain() -> None:
    assert calling_constraint(use(WEATHER), TAGGED, answer=None) is None
    strict = calling_constraint(use(WEATHER | {"strict": True}), TAGGED, answer=None)
    for text, fits in (
        ("Hello there, 1 < 2.", True),
        (f"I look.\n{tagged(ROME)}", True),
        (tagged(ROME, ROME), True),
        (tagged(PARIS), False),
        ("<tool_call>nothing", False),
    ):
        assert takes(strict, text) is fits, text
    bare = calling_constraint(use(WEATHER | {"strict": True}), BARE, answer=None)
    assert takes(bare, "Hello {}") and takes(bare, ROME.replace("arguments", "parameters")) and not takes(bare, '{"x": 1}')


def test_an_answer_of_a_schema_may_be_a_call_instead() -> None:
    answer = Constraint(kind="json", text='{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}')
    constraint = calling_constraint(use(WEATHER), TAGGED, answer=answer)
    assert takes(constraint, '{"x": 3}') and takes(constraint, tagged(ROME)) and not takes(constraint, "Hello")


@pytest.mark.parametrize("tools", [use(WEATHER, is_required=True), use(WEATHER)])
def test_what_cannot_be_had_together_is_refused(tools) -> None:
    with pytest.raises(RequestError, match="expected"):
        calling_constraint(tools, TAGGED, answer=Constraint(kind="regex", text="a+"))
