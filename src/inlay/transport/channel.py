"""The transport seam: a Channel carries frames in order between two ends, whatever lies between them.

The loop of a user is the same for every kind: wait until `fileno` is readable, call `receive` until it returns
None, then offer again what `send` refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

HEADER_LIMIT = 4 * 1024 * 1024
PAYLOAD_LIMIT = 64 * 1024 * 1024


class Frame(NamedTuple):
    """One received frame. `payload` may point into shared memory: use or copy it before the next `receive`."""

    kind: int
    header: bytes
    payload: memoryview


class Channel(Protocol):
    """One end of a connection. Non-blocking. A fault of the peer is a TransferError, after which it is closed."""

    def fileno(self) -> int:
        """A descriptor that selects as readable, and only so, when there is something to do: `receive` may return a
        frame, the peer has gone, or there is room again after a `send` that returned False. After `close` it still
        gives the old number, so that a loop can forget it at once: `loop.remove_reader(channel.fileno())`."""

    def send(self, kind: int, header: bytes, payload: Sequence[Any] = ()) -> bool:
        """Queue one frame whose payload is the given contiguous buffers one after another; False: no room now.

        The buffers belong to the caller again when it returns. A peer that has gone is told by `receive`, not here.
        Raises TransferError(cause="size") for a frame that could never be sent; the channel then stays open.
        """

    def receive(self) -> Frame | None:
        """The next frame, or None when there is none yet; also pushes on what is queued.

        Ends the life of the payload that the last call returned. Raises TransferError(cause="closed") when the peer
        has gone and everything it sent has been handed out.
        """

    def close(self) -> None:
        """Give the descriptors back, without waiting for what is queued; safe to call twice."""
