"""A read-only page of cluster and plan. Reserved: filled when there is more to see than the terminal shows."""

from __future__ import annotations

__all__: list[str] = []
