"""Judges heartbeats: is a process late? Pure: the caller has the clock, asks and decides what follows."""

from __future__ import annotations


class Heartbeat:
    """One watched process. An answer is due within `deadline` seconds of the question; any beat answers all questions.

    A process that is asked nothing is never late, so one that computes for long is judged only while it is asked.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._asked: float | None = None
        self._beat: float | None = None

    def expect(self, now: float) -> None:
        """A beat was asked for. The clock of an older unanswered question runs on."""
        if self._asked is None:
            self._asked = now

    def beat(self, now: float) -> None:
        """A beat arrived."""
        self._asked = None
        self._beat = now

    def late(self, now: float) -> bool:
        """Whether the oldest unanswered question is older than the deadline."""
        return self._asked is not None and now - self._asked > self._deadline

    def due(self) -> float | None:
        """When `late` becomes true without a beat; None when nothing is asked. For a timer."""
        return None if self._asked is None else self._asked + self._deadline

    def silent_for(self, now: float) -> float | None:
        """Seconds since the last beat; None before the first."""
        return None if self._beat is None else now - self._beat
