"""Grammars that make an answer call functions: what `tool_choice` and `strict` ask for, in the shape the model writes.

Lark, as llguidance reads it; each function's parameters stay a schema of their own, so that references in it hold.
"""

from __future__ import annotations

import json
from typing import Any

from inlay.engine.grammar import json_options
from inlay.errors import RequestError
from inlay.models import CallFormat
from inlay.specs.generation import Constraint, ToolUse

_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def calling_constraint(use: ToolUse, shape: CallFormat, *, answer: Constraint | None) -> Constraint | None:
    """What constrains an answer that may call functions: nothing where the choice is the model's and no function is strict.

    `answer` constrains an answer that calls none. Raises RequestError where both cannot be had.
    """
    functions = [tool["function"] for tool in use.tools]
    if use.function is not None:
        functions = [item for item in functions if item["name"] == use.function]
    forced = use.is_required
    if forced and answer is not None:
        raise RequestError(
            f"`tool_choice` forces a call while `{answer.field}` asks for another answer, expected one of them",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if not forced and answer is None and not any(item.get("strict") for item in functions):
        return None
    start = "calls" if forced else _start(shape, answer)
    several = use.parallel and use.function is None
    repeat = f" ({_text('; ' if shape.is_bare else chr(10))} call)*" if several else ""
    rules = [f"start: {start}", f"calls: call{repeat}", f"call: {' | '.join(f'call_{i}' for i in range(len(functions)))}"]
    for i, function in enumerate(functions):
        rules += _call(i, function, shape)
    if not forced:
        bodies = " | ".join(f"body_{i}" for i in range(len(functions)))
        rules += [*_free(shape, answer), f"body: {bodies}"]
    return Constraint(kind="lark", text="\n".join(rules), field="tools" if not forced else "tool_choice")


def _start(shape: CallFormat, answer: Constraint | None) -> str:
    if answer is not None:
        return "calls | answer"
    return "calls | text" if shape.is_bare else "(said called)* text"


def _free(shape: CallFormat, answer: Constraint | None) -> list[str]:
    """The rules of an answer that need not call: text in which a call, once begun, goes on as one."""
    if answer is not None:
        if answer.kind not in ("json", "json_object"):
            raise RequestError(
                f"`{answer.field}` with a {answer.name} and `tools` are both set, expected JSON beside tools",
                param=answer.field,
                code="unsupported_parameter",
            )
        schema = {"type": "object"} if answer.kind == "json_object" else json.loads(answer.text)
        return [f"answer: {_json_rule(schema, answer.whitespace)}"]
    if shape.is_bare:
        return [r"text: /[^\s{](.|\n)*/"]
    opening = shape.opening.replace("/", r"\/")
    return [f"said[lazy]: /(.|\\n)*{opening}/", f"called: {_between(shape)}", r"text: /(.|\n)*/"]


def _between(shape: CallFormat) -> str:
    return f"{_text(chr(10))} body {_text(chr(10) + shape.closing)}"


def _call(index: int, function: dict[str, Any], shape: CallFormat) -> list[str]:
    head = f'{{"name": {json.dumps(function["name"])}, "{shape.key}": '
    parameters = function.get("parameters") or _NO_PARAMETERS
    whole = (
        f"body_{index}" if shape.is_bare else f"{_text(shape.opening + chr(10))} body_{index} {_text(chr(10) + shape.closing)}"
    )
    return [
        f"call_{index}: {whole}",
        f"body_{index}: {_text(head)} arguments_{index} {_text('}')}",
        f"arguments_{index}: {_json_rule(parameters, None)}",
    ]


def _json_rule(schema: Any, whitespace: str | None) -> str:
    if isinstance(schema, dict):
        schema = schema | {"x-guidance": json_options(whitespace)}
    return f"%json {json.dumps(schema)}"


def _text(text: str) -> str:
    return json.dumps(text)
