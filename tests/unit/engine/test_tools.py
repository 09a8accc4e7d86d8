"""Calls of functions in text: whole, in pieces of every size, and what only looks like one."""

from __future__ import annotations

import random

import pytest

from inlay.engine.tools import Read, ToolReader
from inlay.models import CallFormat

TAGGED, BARE = CallFormat(), CallFormat(opening="", closing="", key="parameters")
Calls = list[tuple[str, str]]
ONE = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}</tool_call>{\\""}]}}\n</tool_call>'
ONE_ARGUMENTS = '{"a": 1, "b": [2, {"c": "}</tool_call>{\\""}]}'


def read(text: str, shape: CallFormat, sizes: list[int] | None = None, *, many: bool = True) -> tuple[str, Calls, ToolReader]:
    """Text and calls after feeding `text` in pieces of these sizes, in turn."""
    names = iter(f"id{i}" for i in range(9))
    reader = ToolReader(shape, many=many, make_id=lambda: next(names))
    found: list[Read] = []
    at, turn = 0, 0
    while at < len(text):
        size = len(text) if sizes is None else sizes[turn % len(sizes)]
        found.append(reader.feed(text[at : at + size]))
        at, turn = at + size, turn + 1
    found.append(reader.flush())
    calls: dict[int, list[str]] = {}
    for piece in (piece for each in found for piece in each.calls):
        if piece.index not in calls:
            assert piece.name and piece.id == f"id{piece.index}", "the name comes first"
            calls[piece.index] = [piece.name, ""]
        else:
            assert not piece.name and not piece.id
        calls[piece.index][1] += piece.arguments
    return "".join(each.text for each in found), [(name, told) for name, told in calls.values()], reader


CASES = [
    (TAGGED, "Just text, 1 < 2 and <tool", "Just text, 1 < 2 and <tool", []),
    (TAGGED, "  \n", "  \n", []),
    (TAGGED, ONE, "", [("add", ONE_ARGUMENTS)]),
    (TAGGED, f"Let me see.\n{ONE}", "Let me see.\n", [("add", ONE_ARGUMENTS)]),
    (TAGGED, f"\n\n{ONE}\n{ONE}\n", "", [("add", ONE_ARGUMENTS)] * 2),
    (TAGGED, f"{ONE} Done.", " Done.", [("add", ONE_ARGUMENTS)]),
    (TAGGED, '<tool_call>{"arguments": {"x": 1}, "name": "f"}</tool_call>', "", [("f", '{"x": 1}')]),
    (TAGGED, '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', "", [("f", '{"x": 1}')]),
    (TAGGED, '<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
    (TAGGED, '<tool_call>{"name": "f", "parameters": {}}', "", [("f", "{}")]),
    (TAGGED, '<tool_call>{"name": "f", "arguments": {"x": 1', "", [("f", '{"x": 1')]),
    (TAGGED, '<tool_call>{"name": "f", "argu', '<tool_call>{"name": "f", "argu', []),
    (TAGGED, "<tool_call>hello</tool_call>", "<tool_call>hello</tool_call>", []),
    (TAGGED, '<tool_call>{"x": 1}</tool_call> so', '<tool_call>{"x": 1}</tool_call> so', []),
    (TAGGED, "<tool_call>{broken}</tool_call>", "<tool_call>{broken}</tool_call>", []),
    (TAGGED, '{"name": "f", "arguments": {}}', '{"name": "f", "arguments": {}}', []),
    (BARE, '{"name": "f", "parameters": {"x": 1}}', "", [("f", '{"x": 1}')]),
    (BARE, ' {"name": "f", "parameters": {"x": 1}}; {"name": "g", "parameters": {}}', "", [("f", '{"x": 1}'), ("g", "{}")]),
    (BARE, '{"answer": {"name": "f", "parameters": {}}} end', '{"answer": {"name": "f", "parameters": {}}} end', []),
    (BARE, "{}", "{}", []),
    (BARE, 'I say {"name": "f", "parameters": {}}', 'I say {"name": "f", "parameters": {}}', []),
    (BARE, "Plain text.", "Plain text.", []),
]


@pytest.mark.parametrize(("shape", "text", "said", "calls"), CASES, ids=[f"{i}-{case[1][:30]}" for i, case in enumerate(CASES)])
def test_text_and_calls_are_told_apart_in_pieces_of_every_size(shape, text, said, calls) -> None:
    assert read(text, shape)[:2] == (said, calls)
    for size in range(1, 13):
        assert read(text, shape, [size])[:2] == (said, calls), size
    rng = random.Random(3)
    for _ in range(50):
        sizes = [rng.randrange(1, 9) for _ in range(7)]
        assert read(text, shape, sizes)[:2] == (said, calls), sizes


def test_arguments_come_as_they_are_written_and_the_name_before_them() -> None:
    reader = ToolReader(TAGGED)
    head = reader.feed('<tool_call>\n{"name": "f", "arguments": {"ci')
    assert [(piece.name, piece.arguments) for piece in head.calls] == [("f", ""), ("", '{"ci')]
    assert [piece.arguments for piece in reader.feed('ty": "Ro').calls] == ['ty": "Ro']
    assert [piece.arguments for piece in reader.feed('me"}}').calls] == ['me"}']
    assert reader.calls == 1


def test_one_call_is_enough_where_only_one_is_wanted() -> None:
    said, calls, reader = read(f"{ONE}\n{ONE} more", TAGGED, [5], many=False)
    assert (said, calls, reader.is_full) == ("", [("add", ONE_ARGUMENTS)], True)
    assert read(f"{ONE}\n{ONE}", TAGGED)[2].is_full is False
    bare = '{"name": "f", "parameters": {}}'
    assert read(f"{bare}; {bare}", BARE, [4], many=False)[1] == [("f", "{}")]


def test_a_plain_text_is_shown_at_once_but_for_what_may_begin_a_call() -> None:
    reader = ToolReader(TAGGED)
    assert reader.feed("one two <tool").text == "one two "
    assert reader.feed("box>").text == "<toolbox>"
