"""Whose turn it is on a runner that has prompts as well as sequences that decode: chunks and decode steps share its time.

A chunk may take as long as ten steps. So after a chunk of some length steps get DECODE_TIMES as long before the next one: while
there are prompts a token takes at most half as long again, and prompts keep a third of the time. One chunk for each step made
tokens wait for chunks most of the time.
"""

from __future__ import annotations

from inlay.scheduler.sequence import DECODE
from inlay.scheduler.state import RunnerState

DECODE_TIMES = 2.0


def chunk_done(runner: RunnerState, seconds: float, now: float) -> None:
    """A chunk has taken so long: when the next one may begin, if sequences decode."""
    runner.next_chunk = now + DECODE_TIMES * seconds


def chunk_is_next(runner: RunnerState, now: float) -> bool:
    """Whether a prompt goes before the sequences that decode: there is a step at least between two chunks."""
    if not any(runner.decoding.values()):
        return True
    return runner.last_phase == DECODE and now >= runner.next_chunk
