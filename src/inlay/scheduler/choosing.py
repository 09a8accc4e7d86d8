"""Which mode and how many drafts, for one sequence, from measured acceptance, step times and messages. Pure arithmetic."""

from __future__ import annotations

from inlay.scheduler.sequence import Sequence
from inlay.scheduler.speculating import Speculation
from inlay.scheduler.state import State


def choose(state: State, sequence: Sequence) -> None:
    """Set how the sequence speculates from now on."""
    speculation = sequence.speculation
    if speculation is None or speculation.mode != "auto":
        return
    _settle(state, sequence, speculation)


def _settle(state: State, sequence: Sequence, speculation: Speculation) -> None:
    speculation.mode = "free" if speculation.drafter is not None else "ngram"
