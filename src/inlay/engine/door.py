"""A device process's door: connections come and go on threads of their own, so that two devices that call each other
at the same time never wait for one another. The main loop takes what is ready from a queue."""

from __future__ import annotations

import os
import queue
import socket
import threading
from pathlib import Path
from typing import NamedTuple

from inlay.errors import InlayError
from inlay.transport import Channel, StreamChannel, accept, offer, shake_hands

CONTROL_FRAME = 1
"""Frame kind of the messages between engine and device."""
ENGINE_NAME = "engine"
PEER_PREFIX = "kv:"


class Arrival(NamedTuple):
    """A connection that is ready: who, in which direction, and the channel, or why there is none."""

    peer: str
    incoming: bool
    channel: Channel | None
    reason: str = ""


class Door:
    """Listens on a unix socket and connects to others; every connection has proved the deployment key."""

    def __init__(self, path: Path, *, name: str, key: bytes) -> None:
        self._name = name
        self._key = key
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        os.chmod(path, 0o600)
        self._listener.listen(16)
        threading.Thread(target=self._listen, name="door", daemon=True).start()

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

    def connect(self, peer: str, path: Path) -> None:
        """Begin a shared-memory channel to another device; its arrival or failure comes through `take`."""
        threading.Thread(target=self._connect, args=(peer, path), name=f"connect {peer}", daemon=True).start()

    def _listen(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._greet, args=(sock,), name="greet", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        try:
            peer = shake_hands(sock, key=self._key, name=self._name, connects=False)
            if peer.name == ENGINE_NAME:
                self._put(Arrival(peer.name, True, StreamChannel(sock)))
            else:
                self._put(Arrival(peer.name.removeprefix(PEER_PREFIX), True, accept(sock)))
        except (InlayError, OSError) as error:
            self._put(Arrival("", True, None, str(error)))

    def _connect(self, peer: str, path: Path) -> None:
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(10.0)
            sock.connect(str(path))
            shake_hands(sock, key=self._key, name=PEER_PREFIX + self._name, connects=True)
            self._put(Arrival(peer, False, offer(sock)))
        except (InlayError, OSError) as error:
            self._put(Arrival(peer, False, None, str(error)))

    def _put(self, arrival: Arrival) -> None:
        self._arrivals.put(arrival)
        os.eventfd_write(self._bell, 1)
