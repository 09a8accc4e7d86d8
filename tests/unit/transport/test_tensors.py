"""Named arrays through frames: every dtype and size as it was, and bad frames refused with their cause."""

from __future__ import annotations

import select
import socket
import threading
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.errors import TransferError
from inlay.transport import Frame, NamedArray, RunFailed, SharedChannel, TensorAssembler, TensorSender, accept, offer
from inlay.transport.tensors import DTYPES, TENSOR_FRAME, Part, tensor_frames

DTYPE_NAMES = sorted(DTYPES)


def frames_of(array: np.ndarray[Any, Any], **options: Any) -> list[Frame]:
    return [Frame(TENSOR_FRAME, header, payload) for header, payload in tensor_frames(array, name="h", run=3, **options)]


def whole(assembler: TensorAssembler, frames: list[Frame]) -> NamedArray:
    results = [assembler.take(frame) for frame in frames]
    assert all(item is None for item in results[:-1])
    assert isinstance(results[-1], NamedArray)
    return results[-1]


def filled(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape)) * DTYPES[dtype].itemsize
    flat = np.arange(size, dtype=np.uint64).astype(np.uint8) % (2 if dtype == "bool" else 251)
    return flat.astype(np.uint8).view(DTYPES[dtype]).reshape(shape)


@given(
    st.lists(st.integers(0, 7), max_size=4).map(tuple), st.sampled_from(DTYPE_NAMES), st.integers(1, 40), st.booleans()
)  # fmt: skip
def test_arrays_of_every_dtype_and_shape_arrive_bit_for_bit_whatever_the_frame_size(shape, dtype, frame_bytes, copy) -> None:
    array = filled(shape, dtype)
    frames = frames_of(array, frame_bytes=frame_bytes)
    assert all(len(frame.payload) <= frame_bytes for frame in frames)
    found = whole(TensorAssembler(copy=copy), frames)
    assert (found.name, found.run, found.array.shape, found.array.dtype) == ("h", 3, array.shape, array.dtype)
    assert found.array.tobytes() == array.tobytes()


def test_an_array_that_is_not_contiguous_is_sent_as_its_values() -> None:
    array = np.arange(24, dtype="f4").reshape(2, 3, 4).transpose(2, 0, 1)
    assert np.array_equal(whole(TensorAssembler(), frames_of(array, frame_bytes=16)).array, array)


def test_an_array_of_one_frame_is_a_view_of_its_payload_only_where_no_copy_is_asked() -> None:
    memory = bytearray(np.arange(6, dtype="f4").tobytes())
    part = Part(name="h", run=0, dtype="float32", shape=(6,), offset=0)
    frame = Frame(TENSOR_FRAME, msgspec.msgpack.encode(part), memoryview(memory).toreadonly())
    view, copy = whole(TensorAssembler(copy=False), [frame]), whole(TensorAssembler(), [frame])
    memory[0:4] = np.float32(7).tobytes()
    assert view.array[0] == 7 and copy.array[0] == 0
    assert not view.array.flags.writeable and copy.array.flags.writeable


def test_a_dtype_that_does_not_travel_is_refused_by_the_sender() -> None:
    for array in (np.array([object()]), np.array(["a"]), np.zeros(2, ml_dtypes.float8_e4m3fn)):
        with pytest.raises(TransferError, match="expected one of") as caught:
            tensor_frames(array, name="h", run=0)
        assert caught.value.cause == "dtype"


def replaced(frame: Frame, *, payload: bytes | None = None, **fields: Any) -> Frame:
    part = msgspec.structs.replace(msgspec.msgpack.decode(frame.header, type=Part), **fields)
    data = frame.payload if payload is None else memoryview(payload)
    return Frame(TENSOR_FRAME, msgspec.msgpack.encode(part), data)


ARRAY = np.arange(12, dtype="f4").reshape(3, 4)
FIRST, SECOND, THIRD = frames_of(ARRAY, frame_bytes=16)
BAD = {
    "another kind": ([FIRST._replace(kind=1)], "kind"),
    "no msgpack": ([FIRST._replace(header=b"\xc1")], "header"),
    "a negative size": ([replaced(FIRST, shape=(-3, 4))], "header"),
    "an unknown dtype": ([replaced(FIRST, dtype="object")], "dtype"),
    "more than the limit": ([replaced(FIRST, shape=(1 << 40, 1 << 40))], "size"),
    "begins in the middle": ([SECOND], "order"),
    "a frame is missing": ([FIRST, THIRD], "order"),
    "a frame comes twice": ([FIRST, SECOND, SECOND], "order"),
    "another name": ([FIRST, replaced(SECOND, name="x")], "order"),
    "another run": ([FIRST, replaced(SECOND, run=4)], "order"),
    "another shape": ([FIRST, replaced(SECOND, shape=(4, 3))], "order"),
    "another dtype": ([FIRST, replaced(SECOND, dtype="int32")], "order"),
    "a new array before the old one ends": ([FIRST, replaced(FIRST, run=4)], "order"),
    "too many bytes": ([FIRST, SECOND, replaced(THIRD, payload=bytes(20))], "size"),
    "no bytes": ([FIRST, replaced(SECOND, payload=b"")], "size"),
    "bytes of an empty array": ([replaced(FIRST, shape=(0, 4))], "size"),
}


@pytest.mark.parametrize("fault", list(BAD))
def test_frames_that_do_not_fit_are_transfer_errors_with_their_cause(fault) -> None:
    frames, cause = BAD[fault]
    assembler = TensorAssembler()
    for frame in frames[:-1]:
        assert assembler.take(frame) is None
    with pytest.raises(TransferError) as caught:
        assembler.take(frames[-1])
    assert caught.value.cause == cause


def test_a_failed_run_is_handed_out_and_the_next_array_is_whole_but_not_in_the_middle_of_one() -> None:
    failed = RunFailed(run=3, code="out_of_memory", message="planted")
    frame = Frame(TENSOR_FRAME, msgspec.msgpack.encode(failed), memoryview(b""))
    assembler = TensorAssembler()
    assert assembler.take(frame) == failed
    assert np.array_equal(whole(assembler, [FIRST, SECOND, THIRD]).array, ARRAY)
    assert assembler.take(FIRST) is None
    with pytest.raises(TransferError, match="in the middle"):
        assembler.take(frame)


def pair(size: int) -> tuple[SharedChannel, SharedChannel]:
    left, right = socket.socketpair(socket.AF_UNIX)
    made: list[SharedChannel] = []
    thread = threading.Thread(target=lambda: made.append(accept(right)))
    thread.start()
    out = offer(left, size)
    thread.join()
    return out, made[0]


def test_arrays_larger_than_the_ring_pass_through_it_in_order_with_failures_between() -> None:
    out, into = pair(64 * 1024)
    sender, assembler = TensorSender(out, frame_bytes=16 * 1024), TensorAssembler()
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=size).astype("f4") for size in (100_000, 3, 40_000)]
    sender.send(arrays[0], name="a", run=1)
    assert sender.waiting
    sender.fail(2, code="device_failed", message="planted")
    sender.send(arrays[1], name="b", run=3)
    sender.send(arrays[2], name="c", run=3)
    found: list[Any] = []
    while len(found) < 4:
        select.select([into], [], [], 5)
        frame = into.receive()
        if frame is not None:
            whole_array = assembler.take(frame)
            del frame
            if whole_array is not None:
                found.append(whole_array)
        elif out.receive() is None:
            sender.flush()
    assert not sender.waiting
    assert found.pop(1) == RunFailed(run=2, code="device_failed", message="planted")
    for item, array, name, run in zip(found, arrays, "abc", (1, 3, 3), strict=True):
        assert (item.name, item.run) == (name, run) and np.array_equal(item.array, array)
    out.close()
    into.close()


def test_what_waits_for_room_is_kept_as_it_was_once_it_is_owned() -> None:
    out, into = pair(64 * 1024)
    sender, assembler = TensorSender(out, frame_bytes=16 * 1024), TensorAssembler()
    array = np.arange(100_000, dtype="f4")
    before = array.copy()
    sender.send(array, name="a", run=1)
    assert sender.waiting
    sender.own()
    array[...] = -1  # the next run of the piece that gave it
    found = None
    while found is None:
        select.select([into], [], [], 5)
        frame = into.receive()
        if frame is not None:
            found = assembler.take(frame)
            del frame
        elif out.receive() is None:
            sender.flush()
    assert isinstance(found, NamedArray) and np.array_equal(found.array, before)
    out.close()
    into.close()
