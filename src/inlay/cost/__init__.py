"""How long and how much: profiles, calibrated roofline, link time, energy, price. Reserved: filled when plans are priced."""

from __future__ import annotations

__all__: list[str] = []
