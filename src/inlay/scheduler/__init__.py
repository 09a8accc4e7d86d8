"""Which tokens run next, where, on which KV slots: a state machine without I/O, used by engine and simulator."""

from __future__ import annotations

from inlay.scheduler.machine import step
from inlay.scheduler.state import RunnerState, State, new_state
from inlay.scheduler.steady import Steady, Turn, advance, steady, still_steady, turn_is_awaited

__all__ = [
    "RunnerState",
    "State",
    "Steady",
    "Turn",
    "advance",
    "new_state",
    "steady",
    "step",
    "still_steady",
    "turn_is_awaited",
]
