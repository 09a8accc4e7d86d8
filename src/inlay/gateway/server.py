"""Runs the application on a socket until it is told to stop; SIGTERM and SIGINT stop it and nothing else."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from inlay.errors import InputError

GRACE_SECONDS = 3
"""How long open answers may go on after the signal before they are ended."""


def bind_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises InputError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host {host!r} is no address: {error}", hint="try 127.0.0.1") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise InputError(f"address {host}:{port} cannot be had: {error}", hint="choose another --port, or 0") from error
    return bound


async def run_http(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grace_seconds: int = GRACE_SECONDS,
    on_bound: Callable[[str, int], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; returns within `grace_seconds` and a moment, also with open streams.

    `on_bound` is told the address that was bound, before the first connection. Signals are taken only on the main
    thread. Raises InputError when the address cannot be had.
    """
    bound = bind_socket(host, port)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace_seconds,
    )
    server = _Server(config)
    if on_bound is not None:
        address = bound.getsockname()
        on_bound(address[0], address[1])
    watcher = asyncio.create_task(_watch(stop, server)) if stop is not None else None
    try:
        await server.serve(sockets=[bound])
    finally:
        bound.close()
        if watcher is not None:
            watcher.cancel()


def serve_http(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grace_seconds: int = GRACE_SECONDS,
    on_bound: Callable[[str, int], None] | None = None,
) -> None:
    """`run_http` on an event loop of its own, for a caller that has none."""
    asyncio.run(run_http(app, host=host, port=port, grace_seconds=grace_seconds, on_bound=on_bound))


class _Server(uvicorn.Server):
    """uvicorn raises a caught signal again when it is done, which would kill the caller before it has cleaned up."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _watch(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True
