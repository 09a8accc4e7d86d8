"""The frame codec: how one frame lies on a wire, and the checks a reader makes before it allocates or trusts.

`magic u32 | version u16 | kind u8 | flags u8 | header_len u32 | payload_len u64 | header | payload | crc32 u32 of
the header`, little-endian. The header is msgpack made and read by the caller. Used by the channels of this room.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from inlay.errors import TransferError
from inlay.transport.channel import HEADER_LIMIT, PAYLOAD_LIMIT

MAGIC = int.from_bytes(b"INLY", "little")
VERSION = 1
PREFIX = struct.Struct("<IHBBIQ")
TRAILER = struct.Struct("<I")


class Prefix(NamedTuple):
    """What the fixed part of a frame announces; its lengths are within the caps."""

    kind: int
    header_length: int
    payload_length: int


def encode_prefix(prefix: Prefix) -> bytes:
    """The fixed part of a frame, 20 bytes. Raises TransferError(cause="size") beyond a cap, "kind" above 255."""
    if not 0 <= prefix.kind <= 255:
        raise TransferError(f"frame kind is {prefix.kind}, expected 0 to 255", cause="kind")
    check_sizes(prefix)
    return PREFIX.pack(MAGIC, VERSION, prefix.kind, 0, prefix.header_length, prefix.payload_length)


def decode_prefix(data: bytes | bytearray | memoryview) -> Prefix:
    """Reads 20 bytes that a peer wrote. Raises TransferError with cause "magic", "version" or "size"."""
    magic, version, kind, flags, header_length, payload_length = PREFIX.unpack(data)
    if magic != MAGIC:
        raise TransferError(f"frame starts with {magic:#010x}, expected {MAGIC:#010x}", cause="magic")
    if version != VERSION or flags != 0:
        message = f"frame has version {version} and flags {flags}, expected version {VERSION} and flags 0"
        raise TransferError(message, cause="version", hint="run the same inlay version on both ends")
    prefix = Prefix(kind, header_length, payload_length)
    check_sizes(prefix)
    return prefix


def check_sizes(prefix: Prefix) -> None:
    """Raises TransferError(cause="size") when a length is beyond its cap."""
    for part, length, limit in (
        ("header", prefix.header_length, HEADER_LIMIT),
        ("payload", prefix.payload_length, PAYLOAD_LIMIT),
    ):
        if length > limit:
            raise TransferError(
                f"frame of kind {prefix.kind} has a {part} of {length} bytes, expected at most {limit}",
                cause="size",
                hint="send it as several frames",
            )


def header_crc(header: bytes | bytearray | memoryview) -> int:
    """The crc32 that travels with a header."""
    return zlib.crc32(header)


def check_header(header: bytes | bytearray | memoryview, *, crc: int) -> None:
    """Raises TransferError(cause="crc") when a header is not the one that was sent."""
    found = zlib.crc32(header)
    if found != crc:
        raise TransferError(f"frame header has crc {found:#010x}, expected {crc:#010x}", cause="crc")


def byte_views(payload: Sequence[Any]) -> list[memoryview]:
    """The buffers of a payload as views of bytes, empty ones left out.

    Raises TransferError(cause="layout") for a buffer that is not contiguous or not a buffer at all.
    """
    views = []
    for index, buffer in enumerate(payload):
        try:
            view = memoryview(buffer)
            if view.nbytes:
                views.append(view.cast("B"))
        except (TypeError, ValueError) as error:
            message = f"payload buffer {index} ({type(buffer).__name__}) cannot be sent: {error}"
            raise TransferError(message, cause="layout", hint="make it contiguous, and a view of a plain dtype") from error
    return views
