"""A process's door: connections come and go on threads of their own, so that two processes that call each other at the
same time never wait for one another. The main loop takes what is ready from a queue.

A peer that calls itself `KIND:NAME` with a kind known here is connected by shared memory where it came over the unix
socket, by framed TCP where it came over the network; the controlling process (a name without a kind) by its stream. Used
by device processes of the engine and of the runtime.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from inlay.errors import DeviceError, InlayError, TransferError
from inlay.transport.address import TcpAddress, listen, parse_address, reach, watch_peer
from inlay.transport.channel import Channel
from inlay.transport.handshake import HANDSHAKE_SECONDS, shake_hands
from inlay.transport.memory import accept, offer
from inlay.transport.stream import StreamChannel
from inlay.transport.tls import Tls, TlsChannel, client_context, server_context, wrap

CONTROL_FRAME = 1
"""Frame kind of the messages between a process and the one that controls it."""
ENGINE_NAME = "engine"
GREETINGS = 32
"""Strangers that may be in the middle of their handshake at a time; one more is hung up on."""
KV, STAGE = "kv", "stage"
"""Kinds of channels between devices: KV pages of a hand-off; activations from one piece of a program to the next."""


class Arrival(NamedTuple):
    """A connection that is ready: who, in which direction, and the channel, or why there is none. `kind` is empty for the
    controlling process."""

    peer: str
    incoming: bool
    channel: Channel | None
    reason: str = ""
    kind: str = ""


class Door:
    """Listens on a unix socket, and on TCP where an address `tcp://HOST:PORT` is given, and connects to others; every
    connection has proved the deployment key. With `tls` every TCP connection, in either direction, is inside of TLS."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        key: bytes,
        kinds: Sequence[str] = (KV, STAGE),
        tcp: str = "",
        tls: Tls | None = None,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._name = name
        self._key = key
        self._kinds = tuple(kinds)
        self._handshake_seconds = handshake_seconds
        self._contexts = None if tls is None else (server_context(tls), client_context(tls))
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._greeting = threading.BoundedSemaphore(GREETINGS)
        self._listeners = _listeners(name, [parse_address(str(address)) for address in (path, tcp) if address])
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._listen, args=(item,), name="door", daemon=True) for item in self._listeners
        ]
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        """The TCP port that it listens on, 0 for none."""
        return int(self._listeners[1].getsockname()[1]) if len(self._listeners) > 1 else 0

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

    def connect(self, peer: str, address: str | Path, *, kind: str, seconds: float = 0.0) -> None:
        """Begin a channel to another process: shared memory to a unix socket's path, framed TCP to `tcp://HOST:PORT`.

        Its arrival or failure comes through `take`. A peer that does not listen yet is asked again for `seconds`.
        """
        work = (peer, parse_address(str(address)), kind, time.monotonic() + seconds)
        threading.Thread(target=self._connect, args=work, name=f"connect {peer}", daemon=True).start()

    def close(self) -> None:
        """Listen no more. Channels that were handed out belong to whom they were given."""
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for listener in self._listeners:
            listener.close()
        os.close(self._bell)

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:  # closed
                return
            if self._greeting.acquire(blocking=False):
                threading.Thread(target=self._greet, args=(sock,), name="greet", daemon=True).start()
            else:
                sock.close()

    def _greet(self, sock: socket.socket) -> None:
        try:
            sock = self._secured(sock, server_side=True)
            peer = self._shake_hands(sock, name=self._name, connects=False)
            kind, colon, name = peer.partition(":")
            if not colon:
                self._put(Arrival(peer, True, _stream(sock)))
            elif kind in self._kinds:
                self._put(Arrival(name, True, accept(sock) if _is_local(sock) else _stream(sock), kind=kind))
            else:
                sock.close()
                raise TransferError(f"peer {peer!r} wants a channel of kind {kind!r}, expected {self._kinds}", cause="kind")
        except (InlayError, OSError) as error:
            self._put(Arrival("", True, None, str(error)))
        finally:
            self._greeting.release()

    def _connect(self, peer: str, address: TcpAddress | Path, kind: str, deadline: float) -> None:
        try:
            sock = self._secured(reach(address, deadline=deadline), server_side=False)
            self._shake_hands(sock, name=f"{kind}:{self._name}", connects=True)
            self._put(Arrival(peer, False, offer(sock) if _is_local(sock) else _stream(sock), kind=kind))
        except (InlayError, OSError) as error:
            self._put(Arrival(peer, False, None, f"{address}: {error}", kind=kind))

    def _shake_hands(self, sock: socket.socket, *, name: str, connects: bool) -> str:
        return shake_hands(sock, key=self._key, name=name, connects=connects, seconds=self._handshake_seconds).name

    def _secured(self, sock: socket.socket, *, server_side: bool) -> socket.socket:
        """What goes over the network, inside of TLS where that is asked for; a unix socket as it is."""
        if _is_local(sock):
            return sock
        watch_peer(sock)
        if self._contexts is None:
            return sock
        context = self._contexts[0 if server_side else 1]
        return wrap(sock, context, server_side=server_side, seconds=self._handshake_seconds)

    def _put(self, arrival: Arrival) -> None:
        self._arrivals.put(arrival)
        with suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._bell, 1)


def _listeners(name: str, addresses: Sequence[TcpAddress | Path]) -> list[socket.socket]:
    """One at each address, or none at all and DeviceError."""
    made: list[socket.socket] = []
    for address in addresses:
        try:
            made.append(listen(address))
        except OSError as error:
            for listener in made:
                listener.close()
            raise DeviceError(f"{name} cannot listen at {address}: {error}", hint="is something else there?") from error
    return made


def _is_local(sock: socket.socket) -> bool:
    return sock.family == socket.AF_UNIX


def _stream(sock: socket.socket) -> StreamChannel:
    return TlsChannel(sock) if isinstance(sock, ssl.SSLSocket) else StreamChannel(sock)
