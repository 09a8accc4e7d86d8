"""Sessions, stages and budgets of agent traffic. Reserved: filled when agents are served."""

from __future__ import annotations

__all__: list[str] = []
