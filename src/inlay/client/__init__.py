"""Typed clients that fit the gateway's `Upstream` without importing it, and one question to any OpenAI-compatible URL.

`EngineClient` speaks the engine's own protocol. A client of OpenAI-compatible endpoints with the same methods has its
place here and is not written yet; `stream_chat` asks one such endpoint one question.
"""

from __future__ import annotations

from inlay.client.endpoint import stream_chat
from inlay.client.engine import EngineClient

__all__ = ["EngineClient", "stream_chat"]
