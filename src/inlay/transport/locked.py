"""A Channel that two threads of one process may use: the main loop, and one that only sends small frames now and then."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from inlay.transport.channel import Channel, Frame


class LockedChannel:
    """A Channel over another, which it owns. Only one thread may call `receive`: it ends the life of the last payload."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """See Channel."""
        return self._channel.fileno()

    def send(self, kind: int, header: bytes, payload: Sequence[Any] = ()) -> bool:
        """See Channel."""
        with self._lock:
            return self._channel.send(kind, header, payload)

    def receive(self) -> Frame | None:
        """See Channel."""
        with self._lock:
            return self._channel.receive()

    def close(self) -> None:
        """See Channel."""
        with self._lock:
            self._channel.close()
