"""The ring without processes: every size at every position, and a peer that lies."""

from __future__ import annotations

import random
import struct
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import TransferError
from inlay.transport.frame import MAGIC, PREFIX, VERSION
from inlay.transport.ring import DATA_START, RingReader, RingWriter

CAPACITY = 1024


def ring(capacity: int = CAPACITY) -> tuple[memoryview, RingWriter, RingReader]:
    memory = memoryview(bytearray(DATA_START + capacity))
    return memory, RingWriter(memory), RingReader(memory)


def store(memory: memoryview, at: int, value: int) -> None:
    struct.pack_into("<Q", memory, at, value)


def refused(reader: RingReader) -> str:
    with pytest.raises(TransferError) as caught:
        reader.read()
    return caught.value.cause


frames = st.tuples(st.integers(0, 255), st.binary(max_size=200), st.binary(max_size=700))
steps = st.lists(st.one_of(frames, st.none()), max_size=80)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_any_order_of_writes_and_reads_keeps_every_frame(script: list[tuple[int, bytes, bytes] | None]) -> None:
    _, writer, reader = ring()
    waiting: deque[tuple[int, bytes, bytes]] = deque()
    for step in script:
        if step is not None:
            if writer.write(step[0], step[1], [step[2][:10], step[2][10:]]):
                waiting.append(step)
            else:
                assert waiting or reader._held or writer.head != reader.tail, "an empty ring refused a frame that fits"
            continue
        frame = reader.read()
        found = None if frame is None else (frame.kind, frame.header, bytes(frame.payload))
        assert found == (waiting.popleft() if waiting else None)
        assert writer.head - reader.tail <= CAPACITY


@pytest.mark.parametrize("seed", range(20))
def test_a_long_random_life_keeps_every_frame(seed: int) -> None:
    generator = random.Random(seed)
    _, writer, reader = ring()
    waiting: deque[bytes] = deque()
    for _ in range(500):
        payload = generator.randbytes(generator.choice((0, 1, 64, 200, 400, 700, 960)))
        if generator.random() < 0.6 and writer.write(1, b"", [payload]):
            waiting.append(payload)
        if generator.random() < 0.4:
            frame = reader.read()
            assert (None if frame is None else bytes(frame.payload)) == (waiting.popleft() if waiting else None)


@pytest.mark.parametrize("before", range(0, CAPACITY, 64))
def test_a_frame_as_large_as_the_ring_passes_from_every_position(before: int) -> None:
    _, writer, reader = ring()
    if before:
        assert writer.write(0, b"", [bytes(before - 64)])
        assert reader.read() is not None
        assert reader.read() is None
    payload = bytes(range(240)) * 4
    if not writer.write(1, b"", [payload]):
        assert reader.read() is None  # takes the wrap marker, and gives its bytes back
        assert writer.write(1, b"", [payload])
    frame = reader.read()
    assert frame is not None
    assert bytes(frame.payload) == payload


def test_a_frame_larger_than_the_ring_is_refused_naming_both_sizes() -> None:
    _, writer, _ = ring()
    with pytest.raises(TransferError, match=r"1088 bytes .* holds 1024") as caught:
        writer.write(1, b"", [bytes(1000)])
    assert caught.value.cause == "size"
    assert writer.head == 0


def test_the_payload_is_the_rings_own_memory() -> None:
    memory, writer, reader = ring()
    writer.write(1, b"h", [b"abc"])
    frame = reader.read()
    assert frame is not None
    memory[DATA_START + 64] = ord("z")
    assert bytes(frame.payload) == b"zbc"


@pytest.mark.parametrize("forged", [CAPACITY + 64, 2**64 - 64, 63, 2**63])
def test_a_writers_forged_counter_is_refused(forged: int) -> None:
    memory, _, reader = ring()
    store(memory, 0, forged)
    assert refused(reader) == "ring"


def test_a_writers_counter_that_goes_back_is_refused() -> None:
    memory, writer, reader = ring()
    writer.write(1, b"", [b"a"])
    writer.write(1, b"", [b"a"])
    assert reader.read() is not None
    store(memory, 0, 64)
    assert refused(reader) == "ring"


@pytest.mark.parametrize("forged", [64 * 3, 2**64 - 64, 1])
def test_a_readers_forged_counter_is_refused(forged: int) -> None:
    memory, writer, _ = ring()
    writer.write(1, b"", [b"a"])
    store(memory, 64, forged)
    with pytest.raises(TransferError) as caught:
        writer.write(1, b"", [b"a"])
    assert caught.value.cause == "ring"


def test_a_readers_counter_that_goes_back_is_refused() -> None:
    memory, writer, reader = ring()
    writer.write(1, b"", [b"a"])
    assert reader.read() is not None
    assert reader.read() is None
    writer.write(1, b"", [b"a"])
    store(memory, 64, 0)
    with pytest.raises(TransferError) as caught:
        writer.write(1, b"", [b"a"])
    assert caught.value.cause == "ring"


@pytest.mark.parametrize(
    ("prefix", "cause"),
    [
        (PREFIX.pack(MAGIC, VERSION, 1, 0, 0, 65), "truncated"),
        (PREFIX.pack(MAGIC, VERSION, 1, 0, 105, 0), "truncated"),
        (PREFIX.pack(MAGIC, VERSION, 1, 0, 0, 2**62), "size"),
        (PREFIX.pack(MAGIC + 1, VERSION, 1, 0, 0, 0), "magic"),
        (PREFIX.pack(MAGIC, 2, 1, 0, 0, 0), "version"),
        (PREFIX.pack(MAGIC, VERSION, 1, 0, 0, 0) + b"\x01", "crc"),
        (b"WRAPWRAP", "ring"),
    ],
)
def test_a_lying_frame_is_refused(prefix: bytes, cause: str) -> None:
    memory, _, reader = ring()
    memory[DATA_START : DATA_START + len(prefix)] = prefix
    store(memory, 0, 128)
    assert refused(reader) == cause


def test_a_ring_full_of_wrap_markers_does_not_hold_the_reader() -> None:
    memory, _, reader = ring()
    memory[DATA_START : DATA_START + 8] = b"WRAPWRAP"
    store(memory, 0, CAPACITY)
    assert reader.read() is None
    assert reader.tail == CAPACITY
