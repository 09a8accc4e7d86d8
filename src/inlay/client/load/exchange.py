"""HTTP/1.1 calls whose answers are handed on with the time at which their bytes came in.

The parser is httptools', the sockets asyncio's. The clock is read once for each read of a socket, before anything is
parsed, so what a caller does with the bytes does not shift the times of the next ones by more than its own work.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import httptools

from inlay.errors import InputError, RequestError

IDLE_SECONDS = 2.0
"""How long a connection may lie idle and still be used again; servers close theirs after 5 s or so."""
Clock = Callable[[], float]


class Sink(Protocol):
    """Takes one answer. `at` is the clock's time of the read that brought the bytes."""

    def head(self, status: int, headers: dict[str, str], at: float) -> None:
        """Status and headers (names in lower case), once, before any data."""

    def data(self, data: bytes, at: float) -> None:
        """A piece of the body, without its transfer coding."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a base URL leads: `prefix` is its path without a trailing slash."""

    secure: bool
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises InputError for what is no http or https URL."""
        hint = "write for example http://127.0.0.1:8000"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InputError(f"URL {url!r} cannot be read: {error}", hint=hint) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"URL {url!r} has no http:// or https:// and host, expected both", hint=hint)
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname, port or (443 if secure else 80), parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of the host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


class Connection(asyncio.Protocol):
    """One socket; carries one call at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._ended: asyncio.Future[None] | None = None
        self._headers: dict[str, str] = {}
        self._status = 0
        self._at = 0.0
        self._lost: str | None = None
        self.idle_since = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether another call may be sent on it."""
        return self._lost is None and self._ended is None

    async def call(self, request: bytes, sink: Sink) -> None:
        """Send a whole request, hand its answer to `sink`, return at its end. Raises RequestError when it breaks off.

        Cancelling this closes the socket: the rest of the answer is of no use."""
        if self._transport is None or self._lost is not None:
            raise RequestError(f"the connection is lost: {self._lost}", code="connection_lost", status=503)
        self._sink, self._status, self._headers = sink, 0, {}
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._ended
        except BaseException:
            self.close()
            raise
        finally:
            self._sink = self._ended = None
        self.idle_since = self._clock()

    def close(self) -> None:
        """Close the socket now."""
        if self._lost is None:
            self._lost = "it was closed here"
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is open."""
        assert isinstance(transport, asyncio.Transport)  # what create_connection makes
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        self._at = self._clock()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("not_http", "the server wants to change the protocol")
        except httptools.HttpParserError as error:
            cause = error.__context__ or error
            self._fail("not_http", f"what came is not an HTTP answer: {cause}")

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the socket is closed. A body without a length ends here."""
        self._lost = self._lost or (str(error) if error is not None else "the server closed it")
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if error is None and self._status and not framed:
            self.on_message_complete()
        where = "in mid-answer" if self._status else "before an answer"
        self._fail("connection_lost", f"the connection was lost {where}: {self._lost}")

    def _fail(self, code: str, message: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(RequestError(message, code=code, status=503))

    # httptools' callbacks
    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """httptools: status and headers are known; 1xx ones are not the answer."""
        self._status = self._parser.get_status_code()
        if self._sink is not None and self._status >= 200:
            self._sink.head(self._status, self._headers, self._at)

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of the body."""
        if self._sink is not None:
            self._sink.data(body, self._at)

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        if 100 <= self._status < 200:
            self._status, self._headers = 0, {}
            return
        if not self._parser.should_keep_alive():
            self._lost = self._lost or "the server closes it after each answer"
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class Pool:
    """Connections to one server, used again while they are fresh. Belongs to one event loop."""

    def __init__(self, address: Address, *, clock: Clock, seconds: float) -> None:
        self.address = address
        self._clock = clock
        self._seconds = seconds
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._tls = ssl.create_default_context() if address.secure else None

    async def call(self, method: str, path: str, *, headers: dict[str, str], body: bytes, sink: Sink) -> None:
        """One call to its end, within the pool's seconds, connecting included.

        Raises RequestError with code unreachable, connection_lost, not_http or timeout.
        """
        request = _request(method, path, authority=self.address.authority, headers=headers, body=body)
        try:
            async with asyncio.timeout(self._seconds):
                connection = self._take() or await self._connect()
                try:
                    await connection.call(request, sink)
                finally:
                    self._give_back(connection)
        except TimeoutError:
            found = f"the answer was not complete after {self._seconds:g} s"
            raise RequestError(found, code="timeout", status=504, hint="allow more with --timeout") from None

    def close(self) -> None:
        """Close every socket."""
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        self._idle.clear()

    def _take(self) -> Connection | None:
        oldest = self._clock() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.idle_since >= oldest:
                return connection
            self._drop(connection)
        return None

    def _give_back(self, connection: Connection) -> None:
        if connection.is_usable:
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._all.discard(connection)

    async def _connect(self) -> Connection:
        where = self.address
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._clock), where.host, where.port, ssl=self._tls
            )
        except OSError as error:
            found = f"{where.authority} cannot be reached: {error.strerror or error}"
            raise RequestError(found, code="unreachable", status=503, hint="is the server running, at this address?") from error
        self._all.add(connection)
        return connection


def _request(method: str, path: str, *, authority: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"host: {authority}", "accept-encoding: identity"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
