"""One file per verb: parse, call `inlay.api`, print."""

from __future__ import annotations

__all__: list[str] = []
