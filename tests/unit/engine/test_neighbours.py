"""Activations between neighbours over real channels: each batch gets its own, failures are passed on, loss is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from inlay.engine.calibration import FIRST_BATCH
from inlay.engine.neighbours import Neighbours
from inlay.errors import DeviceError, TransferError
from inlay.specs.stage import KvLayer, StageShape
from inlay.transport import STAGE, Arrival, RunFailed, SharedChannel, StreamChannel, TensorSender, accept, offer

LAYER = KvLayer(key_heads=1, key_dim=1, value_heads=1, value_dim=1)
WHOLE = StageShape(vocabulary=9, layers=(LAYER,) * 3)
FIRST, MIDDLE, LAST = (WHOLE.piece(at, at + 1, hidden=4) for at in range(3))


@pytest.fixture
def channels() -> Iterator[tuple[SharedChannel, SharedChannel]]:
    left, right = socket.socketpair(socket.AF_UNIX)
    made: list[SharedChannel] = []
    thread = threading.Thread(target=lambda: made.append(accept(right)))
    thread.start()
    out = offer(left, 5 << 20)
    thread.join()
    yield out, made[0]
    out.close()
    made[0].close()


def pair(channels: tuple[SharedChannel, SharedChannel]) -> tuple[Neighbours, Neighbours]:
    before, after = Neighbours(FIRST, before="", after="b"), Neighbours(LAST, before="a", after="")
    assert before.connected(Arrival("b", False, channels[0], kind=STAGE))
    assert after.connected(Arrival("a", True, channels[1], kind=STAGE))
    return before, after


def hidden(value: float, width: int = 2) -> np.ndarray:
    return np.full((1, width, 4), value, "f4")


def pump(before: Neighbours, after: Neighbours) -> None:
    for _ in range(100):
        before.receive()
        after.receive()


def test_each_batch_gets_its_own_hidden_state_also_when_it_comes_early(channels) -> None:
    before, after = pair(channels)
    assert after.take(4) is None
    for batch in (4, 5, 9):
        before.send(batch, hidden(batch))
    pump(before, after)
    for batch in (4, 5, 9):
        found = after.take(batch)
        assert isinstance(found, np.ndarray) and found[0, 0, 0] == batch
        assert after.take(batch) is None


def test_batches_that_are_measured_before_the_first_of_the_scheduler_come_too(channels) -> None:
    """In the order and with the numbers of the calibration at the start, then those of the scheduler."""
    before, after = pair(channels)
    for batch in (FIRST_BATCH, FIRST_BATCH + 1, FIRST_BATCH + 2, 0, 1):
        before.send(batch, hidden(batch % 7))
        pump(before, after)
        found = after.take(batch)
        assert isinstance(found, np.ndarray) and found[0, 0, 0] == batch % 7


def test_a_failed_batch_is_told_in_its_place_and_what_nobody_waits_for_is_dropped(channels) -> None:
    before, after = pair(channels)
    before.send(1, hidden(1))  # a batch that failed here before its hidden state came
    before.fail(2, code="out_of_memory", message="a: planted")
    before.send(3, hidden(3))
    pump(before, after)
    assert after.take(2) == RunFailed(run=2, code="out_of_memory", message="a: planted")
    assert after.take(2) is None
    before.send(1, hidden(1))
    pump(before, after)
    assert list(after._came) == [3]
    found = after.take(3)
    assert isinstance(found, np.ndarray) and found[0, 0, 0] == 3
    assert after._came == {}


def test_a_hidden_state_larger_than_the_ring_goes_through_as_it_is_read(channels) -> None:
    before, after = pair(channels)
    before.send(1, hidden(1.5, width=400_000))
    assert before.waiting
    pump(before, after)
    found = after.take(1)
    assert isinstance(found, np.ndarray) and found.shape == (1, 400_000, 4) and (found == 1.5).all() and not before.waiting


@pytest.mark.parametrize("goes", [0, 1])
def test_a_neighbour_that_goes_is_told_by_its_name_by_the_one_before_and_by_the_one_after(channels, goes) -> None:
    both = pair(channels)
    channels[goes].close()
    left = both[1 - goes]
    with pytest.raises(TransferError, match=f"^{'ba'[1 - goes]}: "):
        for _ in range(5):
            left.receive()


def test_what_was_sent_before_the_end_is_still_there(channels) -> None:
    before, after = pair(channels)
    before.send(1, hidden(1))
    channels[0].close()
    with pytest.raises(TransferError):
        pump(Neighbours(WHOLE, before="", after=""), after)
    assert after.take(1) is not None


def test_nonsense_from_a_neighbour_is_a_transfer_error(channels) -> None:
    _, after = pair(channels)
    TensorSender(channels[0]).send(hidden(1), name="something", run=1)
    with pytest.raises(TransferError, match="expected 'hidden'"):
        after.receive()
    before = Neighbours(FIRST, before="", after="b")
    before.connected(Arrival("b", False, channels[0], kind=STAGE))
    channels[1].send(3, b"", [b""])
    with pytest.raises(TransferError, match="came back"):
        before.receive()


def test_only_the_neighbours_of_the_chain_are_let_in_and_only_once(channels) -> None:
    it = Neighbours(MIDDLE, before="a", after="c")
    ends = [[StreamChannel(end) for end in socket.socketpair(socket.AF_UNIX)] for _ in range(4)]

    def refused(mine: StreamChannel, theirs: StreamChannel, peer: str, *, incoming: bool) -> None:
        assert not it.connected(Arrival(peer, incoming, mine, kind=STAGE))
        with pytest.raises(TransferError):
            theirs.receive()
        theirs.close()

    for (mine, theirs), peer, incoming in zip(ends, ("x", "c", "a"), (True, True, False), strict=False):
        refused(mine, theirs, peer, incoming=incoming)
    assert not it.complete
    assert it.connected(Arrival("a", True, channels[1], kind=STAGE)) and not it.complete
    refused(*ends[3], "a", incoming=True)
    assert it.connected(Arrival("c", False, channels[0], kind=STAGE)) and it.complete
    with pytest.raises(DeviceError, match="c cannot be reached: nobody there"):
        it.connected(Arrival("c", False, None, "nobody there", STAGE))


def test_a_process_without_neighbours_is_complete_and_one_with_the_wrong_ones_is_refused() -> None:
    it = Neighbours(WHOLE, before="", after="")
    assert it.complete and not it.waiting
    it.receive()
    it.send(1, hidden(1))
    for stage, before, after in ((FIRST, "a", "b"), (FIRST, "", ""), (LAST, "a", "b"), (MIDDLE, "", "c")):
        with pytest.raises(DeviceError, match="expected a process exactly where the model goes on"):
            Neighbours(stage, before=before, after=after)
