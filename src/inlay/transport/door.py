"""A process's door: connections come and go on threads of their own, so that two processes that call each other at the
same time never wait for one another. The main loop takes what is ready from a queue.

A peer that calls itself `KIND:NAME` with a kind known here is connected by shared memory, the controlling process (a name
without a kind) by its stream. Used by device processes of the engine and of the runtime.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from inlay.errors import InlayError, TransferError
from inlay.transport.channel import Channel
from inlay.transport.handshake import shake_hands
from inlay.transport.memory import accept, offer
from inlay.transport.stream import StreamChannel

CONTROL_FRAME = 1
"""Frame kind of the messages between a process and the one that controls it."""
ENGINE_NAME = "engine"
KV, STAGE = "kv", "stage"
"""Kinds of channels between devices: KV pages of a hand-off; activations from one piece of a program to the next."""
RETRY_SECONDS = 0.02


class Arrival(NamedTuple):
    """A connection that is ready: who, in which direction, and the channel, or why there is none. `kind` is empty for the
    controlling process."""

    peer: str
    incoming: bool
    channel: Channel | None
    reason: str = ""
    kind: str = ""


class Door:
    """Listens on a unix socket and connects to others; every connection has proved the deployment key."""

    def __init__(self, path: Path, *, name: str, key: bytes, kinds: Sequence[str] = (KV, STAGE)) -> None:
        self._name = name
        self._key = key
        self._kinds = tuple(kinds)
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        os.chmod(path, 0o600)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._listen, name="door", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Readable when `take` has something."""
        return self._bell

    def take(self) -> list[Arrival]:
        """All connections that became ready since the last call."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return []
        found = []
        while not self._arrivals.empty():
            found.append(self._arrivals.get())
        return found

    def connect(self, peer: str, path: Path, *, kind: str, seconds: float = 0.0) -> None:
        """Begin a shared-memory channel to another process; its arrival or failure comes through `take`.

        A peer that does not listen yet is asked again for `seconds`.
        """
        work = (peer, path, kind, time.monotonic() + seconds)
        threading.Thread(target=self._connect, args=work, name=f"connect {peer}", daemon=True).start()

    def close(self) -> None:
        """Listen no more. Channels that were handed out belong to whom they were given."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        os.close(self._bell)

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._greet, args=(sock,), name="greet", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        try:
            peer = shake_hands(sock, key=self._key, name=self._name, connects=False).name
            kind, colon, name = peer.partition(":")
            if not colon:
                self._put(Arrival(peer, True, StreamChannel(sock)))
            elif kind in self._kinds:
                self._put(Arrival(name, True, accept(sock), kind=kind))
            else:
                sock.close()
                raise TransferError(f"peer {peer!r} wants a channel of kind {kind!r}, expected {self._kinds}", cause="kind")
        except (InlayError, OSError) as error:
            self._put(Arrival("", True, None, str(error)))

    def _connect(self, peer: str, path: Path, kind: str, deadline: float) -> None:
        try:
            sock = _reach(path, deadline)
            shake_hands(sock, key=self._key, name=f"{kind}:{self._name}", connects=True)
            self._put(Arrival(peer, False, offer(sock), kind=kind))
        except (InlayError, OSError) as error:
            self._put(Arrival(peer, False, None, str(error), kind=kind))

    def _put(self, arrival: Arrival) -> None:
        self._arrivals.put(arrival)
        with suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._bell, 1)


def _reach(path: Path, deadline: float) -> socket.socket:
    """A connected socket; asks again until the deadline while nobody listens there."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(10.0)
            sock.connect(str(path))
            return sock
        except OSError as error:
            sock.close()
            absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            if not absent or time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)
