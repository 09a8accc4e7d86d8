"""Searches deployments under budgets. Reserved: filled when plans are searched."""

from __future__ import annotations

__all__: list[str] = []
