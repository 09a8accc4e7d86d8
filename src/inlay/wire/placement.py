"""Our extension of the schema: where a request must run, and where and how fast it ran."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class PlacementRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Request field `inlay`: the places ("xeon:0/openvino") of the phases; None leaves one to the scheduler.

    A replica whose layers lie at several places is named by all of them, joined by "+". `draft` is the place of the draft
    model, `speculation` a mode and `drafts` the most tokens drafted for one step; None leaves them to the deployment."""

    prefill: str | None = None
    decode: str | None = None
    draft: str | None = None
    speculation: str | None = None
    drafts: Annotated[int, Meta(ge=1, le=64)] | None = None


class Served(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply field `inlay`: the places that served a prompt and its timing in seconds by name.

    `way` says how the prompt was computed ("whole", "split", "part"), `speculation` the mode that gave most tokens, both
    with the reason in words; `acceptance` is the share of drafts that were kept.
    `prompts` is there only when one call carried several prompts: one entry a prompt, in order; the fields
    beside it then describe the first."""

    prefill: str
    decode: str
    timing: dict[str, float] = {}
    way: str = ""
    reason: str = ""
    speculation: str = ""
    speculation_reason: str = ""
    acceptance: float | None = None
    prompts: tuple[Served, ...] = ()
