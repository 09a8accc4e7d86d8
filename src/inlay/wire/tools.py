"""Functions that a model may call, and its calls, as OpenAI spells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inlay.errors import RequestError

FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.\-]{1,64}$")]


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function: `parameters` is the JSON schema of its arguments; `strict` holds calls to it also where the choice to
    call is the model's."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool; only functions are known."""

    type: Literal["function"]
    function: FunctionTool


class ChosenFunction(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a function."""

    name: FunctionName


class ChosenTool(msgspec.Struct, frozen=True, kw_only=True):
    """The one function that must be called."""

    type: Literal["function"]
    function: ChosenFunction


Tools = Annotated[list[Tool], Meta(max_length=128)]
ToolChoice = Literal["none", "auto", "required"] | ChosenTool


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """Which function, with `arguments` as JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, in an answer or in the history of a conversation."""

    id: str
    function: CalledFunction
    type: str = "function"


class FunctionDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a call: the name comes first, then arguments in pieces."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of call number `index` of a choice; `id` and `type` come with the first one."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


def check_tools(tools: Sequence[Tool], choice: ToolChoice | None) -> None:
    """Raise RequestError for functions with one name, and for a choice that names none of them."""
    names = [tool.function.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"`tools` has {names.count(name)} functions named {name!r}, expected one", param="tools")
    if choice in (None, "none", "auto"):
        return
    if not names:
        shown = repr(choice) if isinstance(choice, str) else "a function"
        raise RequestError(f"`tool_choice` is {shown} but `tools` is empty, expected a function in it", param="tool_choice")
    if isinstance(choice, ChosenTool) and choice.function.name not in names:
        found = f"`tool_choice` names {choice.function.name!r}, expected one of `tools`: {', '.join(names)}"
        raise RequestError(found, param="tool_choice")
