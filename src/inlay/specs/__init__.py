"""The waist: frozen data that the deciding and the doing wing exchange. No behaviour beyond reading and writing it."""

from __future__ import annotations

__all__: list[str] = []
