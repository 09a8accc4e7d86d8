"""Mutual proof of the deployment key on a fresh connection, before the first frame is looked at.

Each end sends a nonce and its name; then each proves the key with a keyed blake2b over protocol, side, both nonces
and both names. The side in the digest stops reflection; the names are authentic afterwards. It authenticates the
ends, it does not encrypt: between hosts use a trusted network or TLS below it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket
import struct
import time
from collections.abc import Generator
from typing import NamedTuple

from inlay.errors import TransferError

KEY_BYTES = 32
HANDSHAKE_SECONDS = 10.0
_MAGIC = int.from_bytes(b"INLK", "little")
_VERSION = 1
_HELLO = struct.Struct("<IHH32s")
_PROOF_BYTES = 32
_NAME_LIMIT = 255

_Steps = Generator[bytes | int, bytes, "Peer"]


class Peer(NamedTuple):
    """Who is at the other end, proven; `session` is a key of 32 bytes that only these two ends of it know."""

    name: str
    session: bytes

    def __repr__(self) -> str:
        return f"Peer(name={self.name!r})"


def create_key() -> bytes:
    """A new deployment key."""
    return os.urandom(KEY_BYTES)


def shake_hands(sock: socket.socket, *, key: bytes, name: str, connects: bool, seconds: float = HANDSHAKE_SECONDS) -> Peer:
    """Blocking handshake on a connected socket, over within `seconds`; exactly one end has `connects`.

    Leaves the socket open and blocking when it succeeds, closed when not. Raises TransferError with cause "key",
    "closed", "deadline", "magic" or "version".
    """
    deadline = time.monotonic() + seconds
    steps = _converse(key=key, name=name, connects=connects)
    try:
        step = next(steps)
        while True:
            sock.settimeout(max(1e-3, deadline - time.monotonic()))
            if isinstance(step, bytes):
                sock.sendall(step)
                step = steps.send(b"")
            else:
                step = steps.send(_read(sock, step, deadline=deadline))
    except StopIteration as end:
        sock.settimeout(None)
        peer: Peer = end.value
        return peer
    except TransferError:
        sock.close()
        raise
    except TimeoutError:
        sock.close()
        raise _late(seconds) from None
    except OSError as error:
        sock.close()
        raise TransferError(f"the peer went during the handshake: {error}", cause="closed") from error


async def shake_hands_async(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    key: bytes,
    name: str,
    connects: bool,
    seconds: float = HANDSHAKE_SECONDS,
) -> Peer:
    """The same on an asyncio stream; the writer is closed when it fails."""
    steps = _converse(key=key, name=name, connects=connects)
    try:
        async with asyncio.timeout(seconds):
            step = next(steps)
            while True:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                    answer = b""
                else:
                    answer = await _read_async(reader, step)
                # send() ends with StopIteration, which must not cross a coroutine's frame: caught right here.
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    peer: Peer = end.value
                    return peer
    except TransferError:
        writer.close()
        raise
    except TimeoutError:
        writer.close()
        raise _late(seconds) from None
    except OSError as error:
        writer.close()
        raise TransferError(f"the peer went during the handshake: {error}", cause="closed") from error


def _converse(*, key: bytes, name: str, connects: bool) -> _Steps:
    """The protocol without I/O: yields bytes to send, or how many to read (answered with fewer at the end)."""
    own_name = name.encode()
    if len(key) != KEY_BYTES:
        raise TransferError(f"deployment key has {len(key)} bytes, expected {KEY_BYTES}", cause="key")
    if not 0 < len(own_name) <= _NAME_LIMIT:
        raise TransferError(f"name {name!r} has {len(own_name)} bytes, expected 1 to {_NAME_LIMIT}", cause="size")
    own_nonce = os.urandom(32)
    hello = _HELLO.pack(_MAGIC, _VERSION, len(own_name), own_nonce) + own_name
    if connects:
        yield hello
        peer_nonce, peer_name = yield from _read_hello()
        told = _transcript(own_nonce, peer_nonce, own_name, peer_name)
        yield from _read_proof(_digest(key, b"accepts", told))
        yield _digest(key, b"connects", told)
    else:
        peer_nonce, peer_name = yield from _read_hello()
        told = _transcript(peer_nonce, own_nonce, peer_name, own_name)
        yield hello
        yield _digest(key, b"accepts", told)
        yield from _read_proof(_digest(key, b"connects", told))
    return Peer(peer_name.decode("utf-8", "replace"), _digest(key, b"session", told))


def _read_hello() -> Generator[bytes | int, bytes, tuple[bytes, bytes]]:
    data = yield _HELLO.size
    if len(data) != _HELLO.size:
        raise TransferError("the peer went during the handshake: end of stream", cause="closed")
    magic, version, length, nonce = _HELLO.unpack(data)
    if magic != _MAGIC:
        raise TransferError(f"handshake starts with {magic:#010x}, expected {_MAGIC:#010x}", cause="magic")
    if version != _VERSION:
        hint = "run the same inlay version on both ends"
        raise TransferError(f"handshake has version {version}, expected {_VERSION}", cause="version", hint=hint)
    if not 0 < length <= _NAME_LIMIT:
        raise TransferError(f"the peer's name has {length} bytes, expected 1 to {_NAME_LIMIT}", cause="size")
    name = yield length
    if len(name) != length:
        raise TransferError("the peer went during the handshake: end of stream", cause="closed")
    return nonce, name


def _read_proof(expected: bytes) -> Generator[bytes | int, bytes, None]:
    """An end that finds the other's proof wrong hangs up, so an end of stream here means the key as well."""
    proof = yield _PROOF_BYTES
    if not hmac.compare_digest(proof, expected):
        did = "proved another key" if proof else "hung up when asked for proof of the key"
        raise TransferError(f"the peer {did}", cause="key", hint="both ends must have the key of the same deployment")


def _transcript(nonce: bytes, other_nonce: bytes, name: bytes, other_name: bytes) -> bytes:
    return nonce + other_nonce + struct.pack("<H", len(name)) + name + other_name


def _digest(key: bytes, purpose: bytes, told: bytes) -> bytes:
    return hashlib.blake2b(b"inlay handshake 1|" + purpose + b"|" + told, key=key, digest_size=_PROOF_BYTES).digest()


def _late(seconds: float) -> TransferError:
    return TransferError(f"the handshake took more than {seconds} s", cause="deadline")


def _read(sock: socket.socket, count: int, *, deadline: float) -> bytes:
    """Exactly `count` bytes and never one more: what follows may carry descriptors. Fewer at the end of the stream."""
    data = b""
    while len(data) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        sock.settimeout(remaining)
        part = sock.recv(count - len(data))
        if not part:
            break
        data += part
    return data


async def _read_async(reader: asyncio.StreamReader, count: int) -> bytes:
    try:
        return await reader.readexactly(count)
    except asyncio.IncompleteReadError as error:
        return error.partial
