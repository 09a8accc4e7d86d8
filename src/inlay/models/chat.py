"""ChatEncoder: OpenAI messages to prompt ids, with the template's control tokens and without the user's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inlay.errors import RequestError
from inlay.models.template import ChatTemplate
from inlay.models.tokenizer import Tokenizer
from inlay.models.tools import CallFormat, find_format, has_calls, plain_conversation

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAXIMUM_DEPTH = 32
# What templates know; anything else in a message is left out.
_FIELDS = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "thinking")


class ChatEncoder:
    """A tokenizer and a chat template together. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._control = tokenizer.control_tokens(template.literals)
        self.call_format = find_format(template.literals) if template.takes_tools else CallFormat()
        """How this model writes calls of functions."""

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Prompt ids, equal to transformers' `apply_chat_template`, except that control tokens in the messages, tools
        and options are ordinary text. The template alone decides about <s>. Functions (`tools`) and their calls become
        plain text where the template has no place for them. Raises RequestError.
        """
        checked = check_messages(messages)
        if not self._template.takes_tools and (tools or has_calls(checked)):
            checked, tools = plain_conversation(checked, tools), None
        given = {"messages": checked, "tools": _plain(tools, "tools"), "options": _plain(options, "options")}
        is_hostile = self._control.occur_in(given)
        if is_hostile:
            given = {name: self._control.mark(value) for name, value in given.items()}
            # Roles were checked, and templates compare them.
            for marked, message in zip(given["messages"], checked, strict=True):
                marked["role"] = message["role"]
        rendered = self._template.render(
            given["messages"], add_generation_prompt=add_generation_prompt, tools=given["tools"], options=given["options"]
        )
        return self._control.encode_marked(rendered) if is_hostile else self._tokenizer.encode_template(rendered)


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as templates want them: role, text content, nothing empty. Raises RequestError naming the message.

    Parts of type text are joined by line breaks; other types are refused. Arguments of tool calls become objects.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise _refusal(f"messages is {messages!r}, expected a list with at least one message", "send a message", "messages")
    return [_check_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _check_message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise _refusal(f"{where} is {message!r}, expected an object with role and content", "see the API reference", where)
    role = message.get("role")
    if role not in ROLES:
        raise _refusal(f"{where}.role is {role!r}, expected one of {list(ROLES)}", "correct the role", f"{where}.role")
    checked: dict[str, Any] = {"role": role}
    content = message.get("content")
    if content is not None:
        checked["content"] = _text(content, f"{where}.content")
    elif not message.get("tool_calls"):
        raise _refusal(
            f"{where}.content is null, expected text", "only a message with tool_calls may lack it", f"{where}.content"
        )
    checked |= {name: _plain(message[name], f"{where}.{name}") for name in _FIELDS if message.get(name) is not None}
    if "tool_calls" in checked:
        checked["tool_calls"] = _tool_calls(checked["tool_calls"], f"{where}.tool_calls")
    return checked


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise _refusal(f"{where} is {content!r}, expected text or a list of parts", "send text", where)
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(text, str):
            raise _refusal(
                f"{where}[{index}] has type {kind!r}, expected a part of type 'text'", "this model takes text only", where
            )
        texts.append(text)
    return "\n".join(texts)


def _tool_calls(calls: object, where: str) -> list[dict[str, Any]]:
    """OpenAI sends arguments as JSON text; templates write them out from an object."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise _refusal(f"{where} is {calls!r}, expected a list of objects", "see the API reference", where)
    for call in calls:
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            try:
                arguments = json.loads(function["arguments"] or "{}")
            except (ValueError, RecursionError):
                continue  # a model's own broken JSON stays as it was written
            if isinstance(arguments, dict):
                function["arguments"] = arguments
    return calls


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy made of JSON's types alone, so that a template meets nothing with methods of its own."""
    if depth > MAXIMUM_DEPTH:
        raise _refusal(f"{where} is nested deeper than {MAXIMUM_DEPTH}", "flatten it", where)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise _refusal(f"{where} is a {type(value).__name__}, expected JSON", "send JSON", where)


def _refusal(message: str, hint: str, param: str) -> RequestError:
    shown = message if len(message) <= 500 else f"{message[:500]}..."
    return RequestError(shown, hint=hint, param=param)
