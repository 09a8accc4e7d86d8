"""Our extension of the schema: where a request must run, and where and how fast it ran."""

from __future__ import annotations

import msgspec


class PlacementRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Request field `inlay`: the places ("xeon:0/openvino") of the phases; None leaves one to the scheduler.

    A replica whose layers lie at several places is named by all of them, joined by "+"."""

    prefill: str | None = None
    decode: str | None = None


class Served(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply field `inlay`: the places that served a prompt and its timing in seconds by name.

    `prompts` is there only when one call carried several prompts: one entry a prompt, in order; the fields
    beside it then describe the first."""

    prefill: str
    decode: str
    timing: dict[str, float] = {}
    prompts: tuple[Served, ...] = ()
