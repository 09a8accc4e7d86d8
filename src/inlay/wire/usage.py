"""Token counts as the OpenAI schema reports them."""

from __future__ import annotations

import msgspec


class PromptDetails(msgspec.Struct, frozen=True, kw_only=True):
    """How many prompt tokens came from the prefix cache."""

    cached_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one reply; `total_tokens` is their sum."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails = PromptDetails()


def count_usage(prompt: int, completion: int, *, cached: int = 0) -> Usage:
    """The usage of `prompt` and `completion` tokens, `cached` of the prompt's found in the prefix cache."""
    details = PromptDetails(cached_tokens=cached)
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, prompt_tokens_details=details
    )
