"""The list of models."""

from __future__ import annotations

import msgspec


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One served model; `max_model_len` (prompt and answer together, in tokens) is what benchmark clients read."""

    id: str
    created: int
    max_model_len: int
    root: str
    object: str = "model"
    owned_by: str = "inlay"
    parent: str | None = None


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to GET /v1/models."""

    data: tuple[ModelCard, ...]
    object: str = "list"
