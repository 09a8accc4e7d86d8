"""Constraints become matchers, or a refusal that names the fault; hostile ones end nothing."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from inlay.engine.grammar import REGEX_LIMIT, SIZE_LIMIT, GrammarCompiler
from inlay.errors import RequestError
from inlay.models import read_tokenizer
from inlay.specs.generation import Constraint

pytest.importorskip("llguidance")
TOKENIZER = read_tokenizer(Path(__file__).parents[3] / "demo" / "target")
COMPILER = GrammarCompiler(TOKENIZER, vocabulary=4096, ends=(1, 2))
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def takes(constraint: Constraint, text: str) -> bool:
    """Whether the whole text may be the answer."""
    matcher = COMPILER.compile(constraint)
    tokens = TOKENIZER.encode(text, add_special=False)
    for token in tokens:
        if not matcher.mask()[token // 8] >> token % 8 & 1:
            return False
        assert matcher.accept(token)
    return bool(matcher.mask()[0] >> 1 & 1)  # token 1 ends the text


def schema(value: Any, **options: Any) -> Constraint:
    return Constraint(kind="json", text=json.dumps(value), **options)


@pytest.mark.parametrize(
    ("constraint", "text", "fits"),
    [
        (schema(PERSON), '{"name": "é\\n", "age": 7}', True),
        (schema(PERSON), '{"name":"x","age":120}', True),
        (schema(PERSON), '{\n  "name": "x",\n  "age": 12\n}', True),
        (schema(PERSON), '{"name": "x", "age": 121}', False),
        (schema(PERSON), '{"name": "x"}', False),
        (schema(PERSON), '{"name": "x", "age": 1, "more": 2}', False),
        (schema(PERSON), '{"name": "x",  "age": 1}', False),
        (schema(PERSON, whitespace=""), '{"name": "x", "age": 1}', False),
        (schema(PERSON, whitespace=""), '{"name":"x","age":1}', True),
        (schema(PERSON, whitespace=" {0,2}"), '{"name": "x",  "age": 1}', True),
        (Constraint(kind="json_object"), '{"a": [1, {"b": null}]}', True),
        (Constraint(kind="json_object"), "[1]", False),
        (Constraint(kind="regex", text="[a-c]+x"), "abcx", True),
        (Constraint(kind="regex", text="[a-c]+x"), "abcxx", False),
        (Constraint(kind="choice", text='["yes", "no", "a\\"b\\\\c\\n", "東京"]'), 'a"b\\c\n', True),
        (Constraint(kind="choice", text='["yes", "no", "東京"]'), "東京", True),
        (Constraint(kind="choice", text='["yes", "no"]'), "maybe", False),
        (Constraint(kind="grammar", text='root ::= "a" ("b" | "c") "d"'), "acd", True),
        (Constraint(kind="grammar", text='start: "a" /[0-9]{2}/'), "a12", True),
        (Constraint(kind="lark", text='start: "a" /[0-9]{2}/'), "a1", False),
    ],
)
def test_what_may_be_said(constraint: Constraint, text: str, fits: bool) -> None:
    assert takes(constraint, text) is fits


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(kind="json", text="{"),
        schema({"type": "objct"}),
        schema({"type": "string", "pattern": "("}),
        schema({"type": "integer", "minimum": 5, "maximum": 3}),
        schema({"enum": []}),
        schema({"$ref": "#/nowhere"}),
        schema({"$ref": "http://example.com/schema"}),
        schema({"not": {"type": "string"}}),
        schema(False),
        schema(PERSON, whitespace="("),
        Constraint(kind="regex", text="("),
        Constraint(kind="regex", text="(?=x)a"),
        Constraint(kind="grammar", text="nonsense"),
        Constraint(kind="grammar", text="start: missing"),
        Constraint(kind="lark", text="start: start"),
        schema({"$ref": "#"}),
        Constraint(kind="regex", text="a" * (REGEX_LIMIT + 1)),
        Constraint(kind="grammar", text='start: "' + "a" * SIZE_LIMIT + '"'),
        Constraint(kind="grammar", text="root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000),
        Constraint(kind="lark", text="start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
        Constraint(kind="json", text='{"items":' * 5000 + "{}" + "}" * 5000),
    ],
    ids=lambda item: f"{item.kind}-{item.text[:24]}",
)
def test_what_cannot_be_met_is_refused_with_the_field_and_the_reason(constraint: Constraint) -> None:
    with pytest.raises(RequestError) as caught:
        COMPILER.compile(constraint)
    error = caught.value
    assert (error.status, error.code, error.param) == (400, "invalid_grammar", "structured_outputs")
    assert constraint.name in error.message and len(error.message) < 500
    assert takes(Constraint(kind="regex", text="ab"), "ab")


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(kind="lark", text="start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(5000)) + '\nr5000: "a"'),
        schema({"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(3000)} | {"d3000": {}}, "$ref": "#/$defs/d0"}),
    ],
    ids=["rules", "references"],
)
def test_rules_in_a_long_chain_do_not_overflow_the_stack(constraint: Constraint) -> None:
    """On an ordinary stack the library ends the whole process over these."""
    assert any(COMPILER.compile(constraint).mask())


def test_a_matcher_is_the_callers_own_also_when_the_grammar_was_kept() -> None:
    constraint = Constraint(kind="regex", text="abc")
    first, second = COMPILER.compile(constraint), COMPILER.compile(constraint)
    start = second.mask()
    assert first.accept(TOKENIZER.encode("a", add_special=False)[0])
    assert second.mask() == start != first.mask()
    first.go_back(1)
    assert first.mask() == start


def test_it_can_be_used_from_several_threads() -> None:
    found: list[bool] = []
    constraints = [Constraint(kind="regex", text=f"[a-{letter}]+") for letter in "bcdefghi"] * 3
    threads = [threading.Thread(target=lambda c=c: found.append(any(COMPILER.compile(c).mask()))) for c in constraints]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * len(constraints)


def test_without_the_library_the_refusal_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(RequestError, match="llguidance") as caught:
        GrammarCompiler(TOKENIZER, vocabulary=4096, ends=(1,)).compile(Constraint(kind="json_object", field="response_format"))
    assert (caught.value.status, caught.value.param) == (501, "response_format")
    assert "inlay[structured]" in str(caught.value)
