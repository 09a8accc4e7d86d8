"""The real scheduler on a virtual clock. Reserved: filled when plans are simulated."""

from __future__ import annotations

__all__: list[str] = []
