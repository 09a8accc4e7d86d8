"""Sources whose pages failed their checks too often: for a while nothing of theirs is taken.

Accidents of one transfer are answered by computing again; three in ten minutes between the same two processes are a fault
of memory, wire or program, and every further transfer would cost a prompt. Kept by the destination, for itself.
"""

from __future__ import annotations

from collections import deque

from inlay.errors import TransferError
from inlay.specs.kv import QUARANTINED

INTEGRITY = frozenset({"checksum", "digest", "generation", "order", "size", "truncated"})
"""Causes that say that bytes are not what they were, or not whose."""
FAILURES = 3
SECONDS = 600.0


class Quarantine:
    """Times of integrity failures by source, on the caller's monotonic clock."""

    def __init__(self) -> None:
        self._failures: dict[str, deque[float]] = {}

    def failed(self, source: str, cause: str, *, now: float) -> bool:
        """Count a failed transfer; whether this one has put the source into quarantine."""
        if cause not in INTEGRITY:
            return False
        times = self._failures.setdefault(source, deque(maxlen=FAILURES))
        times.append(now)
        return self.holds(source, now=now)

    def holds(self, source: str, *, now: float) -> bool:
        """Whether nothing is taken from this source now."""
        times = self._failures.get(source)
        return times is not None and len(times) == FAILURES and now - times[0] <= SECONDS

    def check(self, source: str, *, now: float) -> None:
        """Raises TransferError(cause="quarantined")."""
        if self.holds(source, now=now):
            raise TransferError(
                f"{FAILURES} transfers from {source} failed their checks within {SECONDS:.0f} s: nothing of it is taken",
                cause=QUARANTINED,
                hint="look at the log of both processes, then start them again",
            )
