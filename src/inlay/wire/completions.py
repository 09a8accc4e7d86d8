"""POST /v1/completions: the request, the reply and the chunk of a stream (the same object)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from inlay.errors import RequestError
from inlay.wire.placement import Served
from inlay.wire.sampling import TOKEN_LIMIT, SamplingFields, TopCount
from inlay.wire.usage import Usage


class CompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """One or several prompts to continue, each a text or a list of token ids."""

    prompt: str | list[Any]
    logprobs: TopCount | None = None
    echo: bool | None = None

    def check(self) -> None:
        """Raises RequestError when the prompt is of no known kind."""
        self.prompts()

    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """The prompts, one entry each: text, or token ids. Raises RequestError on an empty or a mixed list."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        if not self.prompt:
            raise _prompt_error("prompt", "an empty list")
        if all(isinstance(item, str) for item in self.prompt):
            return tuple(self.prompt)
        if all(isinstance(item, list) for item in self.prompt):
            return tuple(_token_ids(item, name=f"prompt[{i}]") for i, item in enumerate(self.prompt))
        return (_token_ids(self.prompt, name="prompt"),)


class CompletionLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Log-probabilities in the completions form; `text_offset` counts characters from the start of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


def completion_logprobs(rows: Sequence[Any], *, offset: int) -> CompletionLogprobs:
    """The completions form of rows [token id, its text, log-probability, [[id, text, log-probability], ...]].

    The token itself is always among the top ones; of tokens with one text the likeliest stands for all. `offset` is the
    number of characters of the choice's text before the first row.
    """
    offsets = []
    for row in rows:
        offsets.append(offset)
        offset += len(row[1])
    return CompletionLogprobs(
        tokens=[row[1] for row in rows],
        token_logprobs=[row[2] for row in rows],
        top_logprobs=[_top(row) for row in rows],
        text_offset=offsets,
    )


def _top(row: Any) -> dict[str, float] | None:
    if row[2] is None:
        return None
    found: dict[str, float] = {}
    for _, text, logprob in [*row[3], row[:3]]:
        found.setdefault(text, logprob)
    return found


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice, whole or a piece of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A reply or a chunk. `usage` and `inlay` are left out where they are not due."""

    id: str
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    object: str = "text_completion"
    usage: Usage | UnsetType | None = UNSET
    inlay: Served | UnsetType = UNSET


def _token_ids(items: list[Any], *, name: str) -> tuple[int, ...]:
    if not items:
        raise _prompt_error(name, "an empty list")
    for i, item in enumerate(items):
        if type(item) is not int or not 0 <= item <= TOKEN_LIMIT:
            raise _prompt_error(f"{name}[{i}]", f"{item!r:.80}")
    return tuple(items)


def _prompt_error(name: str, value: str) -> RequestError:
    expected = "a text, a list of texts, a list of token ids or a list of such lists"
    return RequestError(f"`{name}` is {value}, expected `prompt` to be {expected}", param="prompt")
