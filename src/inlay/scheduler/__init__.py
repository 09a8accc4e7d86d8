"""Which tokens run next, where, on which KV slots: a state machine without I/O, used by engine and simulator."""

from __future__ import annotations

from inlay.scheduler.machine import step
from inlay.scheduler.state import State, new_state

__all__ = ["State", "new_state", "step"]
