"""The caps of one gateway that are not part of the schema (those are in `wire`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes in bytes, durations in seconds."""

    body_bytes: int = 8 * 1024 * 1024
    """A larger body is refused with 413."""
    body_seconds: float = 60.0
    """A body that takes longer to arrive is refused with 408."""
    prompts: int = 256
    """Prompts in one completions call."""
    ping_seconds: float = 15.0
    """A stream without news for this long carries a comment."""
    model_seconds: float = 2.0
    """How long the upstream's description is believed."""
