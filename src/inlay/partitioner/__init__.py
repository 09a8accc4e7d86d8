"""Cuts a Program over a Cluster by cost. Reserved: filled when models are cut."""

from __future__ import annotations

__all__: list[str] = []
