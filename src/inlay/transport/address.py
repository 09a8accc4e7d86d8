"""Where a process is reached: the path of a unix socket on its own host, or `tcp://HOST:PORT` from anywhere.

What the two mean for what follows is the door's matter: shared memory over the first, framed TCP over the second.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from inlay.errors import InputError

TCP = "tcp://"
CONNECT_SECONDS = 10.0
RETRY_SECONDS = 0.02
DEAD_SECONDS = 10
"""A TCP peer that acknowledges nothing for so long is gone: the kernel then ends the connection (a half-open link)."""
_PROBE_SECONDS = 3


class TcpAddress(NamedTuple):
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{TCP}[{self.host}]:{self.port}" if ":" in self.host else f"{TCP}{self.host}:{self.port}"


def parse_address(text: str) -> TcpAddress | Path:
    """`"tcp://10.0.0.7:4000"`, or the path of a unix socket. Raises InputError."""
    if not text.startswith(TCP):
        return Path(text)
    host, colon, port = text[len(TCP) :].rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise InputError(f"address is {text!r}, expected tcp://HOST:PORT", hint="for example tcp://10.0.0.7:4000")
    return TcpAddress(host, int(port))


def listen(address: TcpAddress | Path) -> socket.socket:
    """A listening socket there; a unix socket is for this user only. Raises OSError."""
    if isinstance(address, Path):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.bind(str(address))
            address.chmod(0o600)
            made.listen(16)
        except OSError:
            made.close()
            raise
        return made
    family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((address.host, address.port), family=family, backlog=16)


def reach(address: TcpAddress | Path, *, deadline: float) -> socket.socket:
    """A connected socket; asks again until the deadline (monotonic) while nobody listens there. Raises OSError."""
    while True:
        try:
            return _connect(address)
        except OSError as error:
            absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            if not absent or time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _connect(address: TcpAddress | Path) -> socket.socket:
    if isinstance(address, TcpAddress):
        made = socket.create_connection(address, timeout=CONNECT_SECONDS)
        watch_peer(made)
        return made
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(CONNECT_SECONDS)
        made.connect(str(address))
    except OSError:
        made.close()
        raise
    return made


def watch_peer(sock: socket.socket) -> None:
    """Small frames leave at once, and a peer whose host has gone without a word is noticed within DEAD_SECONDS."""
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, DEAD_SECONDS // _PROBE_SECONDS),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_SECONDS * 1000),
    ):
        with suppress(OSError):  # a kernel without one of them: the lease still ends what hangs
            sock.setsockopt(level, option, value)
