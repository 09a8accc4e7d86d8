"""The frame codec refuses everything that its own end would not have written."""

from __future__ import annotations

import struct

import pytest

from inlay import transport
from inlay.errors import TransferError
from inlay.transport.channel import HEADER_LIMIT, PAYLOAD_LIMIT
from inlay.transport.frame import (
    MAGIC,
    PREFIX,
    VERSION,
    Prefix,
    byte_views,
    check_header,
    decode_prefix,
    encode_prefix,
    header_crc,
)


def test_the_face_is_sorted_and_complete() -> None:
    assert transport.__all__ == sorted(transport.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert len(transport.__all__) <= 25
    assert all(hasattr(transport, name) for name in transport.__all__)


def test_a_prefix_survives_the_round_trip_and_lies_as_documented() -> None:
    prefix = Prefix(7, 1234, 5678)
    data = encode_prefix(prefix)
    assert data == b"INLY" + struct.pack("<HBBIQ", 1, 7, 0, 1234, 5678)
    assert decode_prefix(data) == prefix


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ((MAGIC + 1, VERSION, 1, 0, 0, 0), "magic"),
        ((MAGIC, VERSION + 1, 1, 0, 0, 0), "version"),
        ((MAGIC, VERSION, 1, 1, 0, 0), "version"),
        ((MAGIC, VERSION, 1, 0, HEADER_LIMIT + 1, 0), "size"),
        ((MAGIC, VERSION, 1, 0, 0, PAYLOAD_LIMIT + 1), "size"),
        ((MAGIC, VERSION, 1, 0, 0xFFFFFFFF, 2**64 - 1), "size"),
    ],
)
def test_a_foreign_prefix_is_refused_with_its_cause(fields: tuple[int, ...], cause: str) -> None:
    with pytest.raises(TransferError) as caught:
        decode_prefix(PREFIX.pack(*fields))
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    ("prefix", "cause"),
    [(Prefix(256, 0, 0), "kind"), (Prefix(1, HEADER_LIMIT + 1, 0), "size"), (Prefix(1, 0, PAYLOAD_LIMIT + 1), "size")],
)
def test_what_a_peer_would_refuse_is_not_written(prefix: Prefix, cause: str) -> None:
    with pytest.raises(TransferError) as caught:
        encode_prefix(prefix)
    assert caught.value.cause == cause


def test_a_changed_header_is_refused() -> None:
    check_header(b"header", crc=header_crc(b"header"))
    with pytest.raises(TransferError) as caught:
        check_header(b"headeR", crc=header_crc(b"header"))
    assert caught.value.cause == "crc"


def test_a_payload_is_seen_as_bytes_without_a_copy_and_empty_buffers_vanish() -> None:
    numbers = bytearray(16)
    views = byte_views([memoryview(numbers).cast("I"), b"", b"abc"])
    numbers[0] = 9
    assert [view.nbytes for view in views] == [16, 3]
    assert views[0][0] == 9


@pytest.mark.parametrize("buffer", [memoryview(b"abcdef")[::2], "text"])
def test_a_payload_that_is_not_contiguous_bytes_is_refused(buffer: object) -> None:
    with pytest.raises(TransferError) as caught:
        byte_views([buffer])
    assert caught.value.cause == "layout"
