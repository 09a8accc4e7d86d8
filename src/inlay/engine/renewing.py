"""Keeps the leases of outgoing transfers alive from a thread of its own, so that a long batch does not end them.

It says that the process lives, not that it gets on: a frozen or dead one says nothing. Device process only.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from inlay.errors import TransferError
from inlay.transport import Channel

STEP_SECONDS = 0.25


class Beat(NamedTuple):
    """One transfer's renewal: send this record every so many seconds. The channel must bear a second thread."""

    channel: Channel
    kind: int
    header: bytes
    every: float


class Renewer:
    """Sends the beats it is given, until it is given others. `beats` is replaced as a whole, never changed."""

    def __init__(self) -> None:
        self.beats: tuple[Beat, ...] = ()
        self._sent: dict[bytes, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renew leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; returns when nothing more is sent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def renew(self, now: float) -> None:
        """Send what is due at this monotonic time."""
        beats = self.beats
        self._sent = {beat.header: self._sent.get(beat.header, now) for beat in beats}
        for beat in beats:
            if now - self._sent[beat.header] >= beat.every:
                self._sent[beat.header] = now
                with suppress(TransferError):  # a lost channel is told by `receive`, in the main loop
                    beat.channel.send(beat.kind, beat.header)

    def _run(self) -> None:
        while not self._stop.wait(STEP_SECONDS):
            self.renew(monotonic())
