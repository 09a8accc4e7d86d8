"""TLS below the frames of a TCP link, where a deployment asks for it: both ends show a certificate of its authority.

The keyed handshake runs inside of it and stays what proves the deployment; TLS adds that nobody reads or alters what
passes. Standard library only.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from inlay.errors import InputError
from inlay.transport.stream import StreamChannel

_READ_BYTES = 256 * 1024


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files in PEM: this end's certificate with its key, and the authority that both ends' certificates come from."""

    certificate: str
    key: str
    authority: str


def server_context(files: Tls) -> ssl.SSLContext:
    """For the end that listens; it takes nobody without a certificate of the authority. Raises InputError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _load(context, files)


def client_context(files: Tls) -> ssl.SSLContext:
    """For the end that connects. Names in certificates are not compared: who is who, the keyed handshake says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return _load(context, files)


def _load(context: ssl.SSLContext, files: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"TLS files {files.certificate!r}, {files.key!r}, {files.authority!r} cannot be used: {error}",
            hint="give PEM files: a certificate, its key, and the certificate of the authority",
        ) from error
    return context


class TlsChannel(StreamChannel):
    """A StreamChannel over a socket that TLS wraps."""

    def _send_some(self, buffers: Iterable[memoryview]) -> int:
        return self._try(self._socket.send, next(islice(buffers, 1)))

    def _receive_some(self, buffers: list[memoryview]) -> int:
        return self._try(self._socket.recv_into, buffers[0][:_READ_BYTES])

    def _try(self, call: Any, view: memoryview) -> int:
        try:
            return int(call(view))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except ssl.SSLZeroReturnError:
            return 0


def wrap(sock: socket.socket, context: ssl.SSLContext, *, server_side: bool, seconds: float) -> ssl.SSLSocket:
    """TLS over a connected socket, its handshake done within `seconds`; closed when it fails. Raises OSError."""
    sock.settimeout(seconds)
    try:
        return context.wrap_socket(sock, server_side=server_side)
    except OSError:
        sock.close()
        raise
