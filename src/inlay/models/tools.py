"""How a model is told of functions and writes its calls: the shape its chat template teaches, or a plain one of our own.

A template that has no place for functions gets them as system text, and earlier calls and their results as messages that
it knows. Called by ChatEncoder; `CallFormat` is what the engine reads calls back by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_KEY = re.compile(r'"name":[^}]{0,120}"(arguments|parameters)"')
_OPENING, _CLOSING = "<tool_call>", "</tool_call>"


class CallFormat(msgspec.Struct, frozen=True, kw_only=True):
    """A call is a JSON object with "name" and `key`, between `opening` and `closing`; bare where these are empty."""

    opening: str = _OPENING
    closing: str = _CLOSING
    key: str = "arguments"

    @property
    def is_bare(self) -> bool:
        """Whether a call is the JSON object alone."""
        return not self.opening


def find_format(literals: str) -> CallFormat:
    """The shape that the own text of a template asks for; the tagged one where it says nothing that is known here."""
    named = _KEY.search(literals)
    key = named[1] if named else "arguments"
    if _OPENING in literals or named is None:
        return CallFormat(key=key)
    return CallFormat(opening="", closing="", key=key)


def plain_conversation(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Checked messages for a template that knows neither functions nor their results: the functions are appended to the
    system message (or make one), calls become text of the assistant, results text of the user."""
    plain = [_plain_message(message) for message in messages]
    if not tools:
        return plain
    told = _instructions(tools)
    if plain and plain[0]["role"] == "system":
        first = plain[0] | {"content": f"{plain[0]['content']}\n\n{told}"}
        return [first, *plain[1:]]
    return [{"role": "system", "content": told}, *plain]


def has_calls(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a conversation has calls of functions, or their results, in it."""
    return any(message["role"] in ("tool", "function") or message.get("tool_calls") for message in messages)


def _plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] in ("tool", "function"):
        return {"role": "user", "content": f"<tool_response>\n{message.get('content', '')}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    functions = [call.get("function", {}) for call in calls]
    written = [
        f"{_OPENING}\n{_json({'name': item.get('name', ''), 'arguments': item.get('arguments', {})})}\n{_CLOSING}"
        for item in functions
    ]
    text = message.get("content") or ""
    return {"role": message["role"], "content": "\n".join([*([text] if text else []), *written])}


def _instructions(tools: Sequence[Mapping[str, Any]]) -> str:
    listed = "\n".join(_json(tool.get("function", tool)) for tool in tools)
    return (
        "These functions can be called; each line describes one by a JSON object:\n"
        f"{listed}\n"
        "To call a function, write its name and arguments like this, one block for each call:\n"
        f'{_OPENING}\n{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}\n{_CLOSING}'
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
