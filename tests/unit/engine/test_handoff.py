"""Sender and receiver of KV pages over a real shared-memory channel: every doubt ends the transfer, never a wrong row."""

from __future__ import annotations

import dataclasses
import socket
import threading
from typing import Any

import msgspec
import numpy as np
import pytest

from inlay.engine.pages import chunk_bytes, seal, token_bytes, unseal
from inlay.engine.planted import Plant
from inlay.engine.receiving import Receiver
from inlay.engine.sending import KV_FRAME, Sender
from inlay.errors import InputError, TransferError
from inlay.specs.device import ExpectTransfer, KvArrived, KvFailed, KvSent, OpenTransfer, Row, SlotAddress, TransferBinding
from inlay.specs.kv import Abort, Chunk, Commit, KvRecord, Reserve
from inlay.specs.stage import KvLayer, StageShape
from inlay.transport import accept, offer

LAYERS = (
    KvLayer(key_heads=2, key_dim=4, value_heads=2, value_dim=6),
    KvLayer(key_heads=1, key_dim=8, value_heads=1, value_dim=8),
)
STAGE = StageShape(vocabulary=10, layers=LAYERS)
KEY = bytes(range(32))
SLOT = SlotAddress(64, 1)
TOKENS = 11


class Pool:
    """The KV part of a runner, as arrays [slot][row] by layer."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.keys = [rng.normal(size=(4, 64, item.key_heads, item.key_dim)).astype("f4") for item in LAYERS]
        self.values = [rng.normal(size=(4, 64, item.value_heads, item.value_dim)).astype("f4") for item in LAYERS]

    def export_kv(self, slot: SlotAddress, start: int, count: int, layers: Any = None) -> list[tuple[Any, Any]]:
        rows = slice(start, start + count)
        own = range(len(LAYERS)) if layers is None else layers
        return [(self.keys[i][slot.index, rows].copy(), self.values[i][slot.index, rows].copy()) for i in own]

    def written(self, slot: SlotAddress, start: int) -> tuple[SlotAddress, ...]:
        return (slot,)

    def import_kv(self, slot: SlotAddress, start: int, pages: Any, layers: Any) -> None:
        for layer, (keys, values) in zip(layers, pages, strict=True):
            self.keys[layer][slot.index, start : start + len(keys)] = keys
            self.values[layer][slot.index, start : start + len(values)] = values


def binding(**fields: Any) -> TransferBinding:
    default = TransferBinding(
        transfer=1, request="r", sequence=5, attempt=0, nonce=b"n" * 16, source="a", source_epoch=1,
        destination="b", destination_epoch=1, tokens=TOKENS, chain=b"c" * 16, lease=10.0,
    )  # fmt: skip
    return msgspec.structs.replace(default, **fields)


OPEN: list[Any] = []


@pytest.fixture(autouse=True)
def _close_channels():
    yield
    while OPEN:
        OPEN.pop().close()


class Pair:
    """A source and a destination with a channel between them, pumped by hand."""

    def __init__(self, *, alter: Any = None, plant: str = "none", epoch: int = 1, model: str = "m") -> None:
        left, right = socket.socketpair(socket.AF_UNIX)
        made: list[Any] = []
        thread = threading.Thread(target=lambda: made.append(accept(right)))
        thread.start()
        self.out = offer(left, 1 << 20)
        thread.join()
        self.into = made[0]
        OPEN.extend((self.out, self.into))
        self.source, self.destination = Pool(1), Pool(2)
        self.before = Pool(2)
        self.reports_a: list[Any] = []
        self.reports_b: list[Any] = []
        self.alter = alter
        self.sender = Sender(
            self.source, STAGE, model_digest="m", key=KEY,  # type: ignore[arg-type]
            connect=lambda peer: self.sender.connected(peer, self.out), report=self.reports_a.append,
        )  # fmt: skip
        self.receiver = Receiver(
            self.destination, STAGE, name="b", epoch=epoch, model_digest=model, key=KEY,  # type: ignore[arg-type]
            report=self.reports_b.append, plant=Plant(plant),
        )  # fmt: skip

    def pump(self) -> None:
        for _ in range(20):
            while (frame := self.into.receive()) is not None:
                record = msgspec.msgpack.decode(frame.header, type=KvRecord)
                payload = bytes(frame.payload)
                altered = [(record, payload)] if self.alter is None else self.alter(record, payload)
                for item, data in altered:
                    self.receiver.receive(
                        item, memoryview(data), lambda reply: self.into.send(KV_FRAME, msgspec.msgpack.encode(reply))
                    )
            while (frame := self.out.receive()) is not None:
                self.sender.receive(msgspec.msgpack.decode(frame.header, type=KvRecord))

    def run(self, *, expected: TransferBinding | None = None) -> None:
        self.receiver.expect(ExpectTransfer(binding=expected or binding(), slot=SLOT))
        self.sender.open(OpenTransfer(binding=binding(), slot=SlotAddress(64, 0)))
        for start, count, commit in ((0, 4, False), (4, 4, False), (8, 3, True)):
            self.pump()
            row = Row(sequence=5, slot=0, tokens=(0,) * count, past_length=start, transfer=1, commit=commit)
            self.sender.row_done(row, SlotAddress(64, 0))
        self.pump()


def arrived(pair: Pair) -> bool:
    return any(isinstance(item, KvArrived) for item in pair.reports_b)


def test_pages_arrive_as_they_were_and_both_ends_say_so() -> None:
    pair = Pair()
    pair.run()
    for mine, theirs in ((pair.source.keys, pair.destination.keys), (pair.source.values, pair.destination.values)):
        for a, b in zip(mine, theirs, strict=True):
            assert np.array_equal(a[0, :TOKENS], b[1, :TOKENS])
    assert pair.reports_a == [KvSent(transfer=1, sequence=5, size=chunk_bytes(LAYERS, TOKENS))]
    [report] = pair.reports_b
    assert isinstance(report, KvArrived) and (report.tokens, report.chunks) == (TOKENS, 3)
    assert report.size == TOKENS * token_bytes(LAYERS)


def test_rows_of_other_slots_are_not_touched() -> None:
    pair = Pair()
    pair.run()
    for slot in (0, 2, 3):
        assert np.array_equal(pair.destination.keys[0][slot], pair.before.keys[0][slot])
    assert np.array_equal(pair.destination.keys[0][1, TOKENS:], pair.before.keys[0][1, TOKENS:])


def test_the_source_may_rewrite_its_slot_as_soon_as_the_rows_are_sealed() -> None:
    pair = Pair()
    pair.receiver.expect(ExpectTransfer(binding=binding(), slot=SLOT))
    kept = pair.source.keys[0][0, :TOKENS].copy()
    pair.sender.open(OpenTransfer(binding=binding(), slot=SlotAddress(64, 0)))
    row = Row(sequence=5, slot=0, tokens=(0,) * TOKENS, past_length=0, transfer=1, commit=True)
    pair.sender.row_done(row, SlotAddress(64, 0))  # not granted yet
    pair.source.keys[0][0] = 0
    pair.pump()
    assert arrived(pair) and np.array_equal(pair.destination.keys[0][1, :TOKENS], kept)


def flipped(record: Any, payload: bytes) -> list[tuple[Any, bytes]]:
    if isinstance(record, Chunk) and record.number == 1:
        payload = bytes([payload[0] ^ 1]) + payload[1:]
    return [(record, payload)]


def resealed(record: Any, payload: bytes) -> list[tuple[Any, bytes]]:
    """Another page with a fitting checksum: only the keyed digest can see it."""
    if isinstance(record, Chunk) and record.number == 1:
        other = Pool(9).export_kv(SlotAddress(64, 3), record.start, record.tokens)
        arrays, crcs = seal(other)
        return [(msgspec.structs.replace(record, crcs=crcs), b"".join(item.tobytes() for item in arrays))]
    return [(record, payload)]


def dropped(record: Any, payload: bytes) -> list[tuple[Any, bytes]]:
    return [] if isinstance(record, Chunk) and record.number == 1 else [(record, payload)]


def doubled(record: Any, payload: bytes) -> list[tuple[Any, bytes]]:
    return [(record, payload)] * (2 if isinstance(record, Chunk) and record.number == 1 else 1)


def shortened(record: Any, payload: bytes) -> list[tuple[Any, bytes]]:
    return [(record, payload[:-4] if isinstance(record, Chunk) else payload)]


def cut_off(record: Any, payload: bytes) -> list[tuple[Any, bytes]]:
    """The last chunk and the commit agree that less was sent than announced."""
    if isinstance(record, Chunk) and record.number == 2:
        return []
    if isinstance(record, Commit):
        return [(msgspec.structs.replace(record, chunks=2, size=chunk_bytes(LAYERS, 8)), payload)]
    return [(record, payload)]


@pytest.mark.parametrize(
    ("alter", "cause"),
    [
        (flipped, "checksum"),
        (resealed, "digest"),
        (dropped, "order"),
        (doubled, "order"),
        (shortened, "size"),
        (cut_off, "truncated"),
    ],
)
def test_damaged_transfers_are_refused_at_both_ends_with_the_cause(alter, cause) -> None:
    pair = Pair(alter=alter)
    pair.run()
    assert not arrived(pair)
    assert [item.cause for item in pair.reports_b if isinstance(item, KvFailed)] == [cause]
    assert [item.cause for item in pair.reports_a if isinstance(item, KvFailed)] == [cause]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"request": "other"}, "binding"),
        ({"source_epoch": 2}, "binding"),
        ({"tokens": 12}, "binding"),
        ({"chain": b"x" * 16}, "binding"),
    ],
)
def test_a_manifest_that_is_not_the_announced_one_is_refused(fields, cause) -> None:
    pair = Pair()
    pair.run(expected=binding(**fields))
    assert not arrived(pair)
    assert [item.cause for item in pair.reports_a] == [cause]


def test_a_stale_epoch_and_another_model_are_refused() -> None:
    for pair, cause in ((Pair(epoch=2), "epoch"), (Pair(model="other"), "model")):
        pair.run()
        assert not arrived(pair)
        assert pair.reports_a[0].cause == cause


def test_an_unannounced_transfer_and_a_wrong_nonce_are_refused_without_harm_to_the_announced_one() -> None:
    pair = Pair()
    pair.receiver.expect(ExpectTransfer(binding=binding(nonce=b"z" * 16), slot=SLOT))
    pair.sender.open(OpenTransfer(binding=binding(), slot=SlotAddress(64, 0)))
    pair.pump()
    assert pair.reports_a[0].cause == "unexpected" and not pair.reports_b


def test_chunks_of_an_aborted_attempt_are_discarded() -> None:
    pair = Pair()
    pair.receiver.expect(ExpectTransfer(binding=binding(), slot=SLOT))
    pair.sender.open(OpenTransfer(binding=binding(), slot=SlotAddress(64, 0)))
    pair.pump()
    pair.receiver.abort(1)
    pair.sender.row_done(Row(sequence=5, slot=0, tokens=(0,) * 4, past_length=0, transfer=1), SlotAddress(64, 0))
    pair.pump()
    assert np.array_equal(pair.destination.keys[0], pair.before.keys[0]) and not pair.reports_b


def test_an_abort_by_the_source_reaches_the_destination() -> None:
    pair = Pair()
    pair.receiver.expect(ExpectTransfer(binding=binding(), slot=SLOT))
    pair.sender.open(OpenTransfer(binding=binding(), slot=SlotAddress(64, 0)))
    pair.pump()
    pair.sender.abort(1, "test")
    pair.pump()
    assert [item.cause for item in pair.reports_b] == ["aborted"]


def test_a_lost_source_fails_its_unfinished_transfers_only() -> None:
    pair = Pair()
    pair.receiver.expect(ExpectTransfer(binding=binding(), slot=SLOT))
    pair.receiver.expect(ExpectTransfer(binding=binding(transfer=2, source="other", nonce=b"o" * 16), slot=SlotAddress(64, 2)))
    pair.sender.open(OpenTransfer(binding=binding(), slot=SlotAddress(64, 0)))
    pair.pump()
    pair.receiver.source_lost("a", "gone")
    assert [(item.transfer, item.cause) for item in pair.reports_b] == [(1, "channel_lost")]


def test_records_of_the_wrong_kind_or_order_do_no_harm() -> None:
    pair = Pair()
    pair.receiver.expect(ExpectTransfer(binding=binding(), slot=SLOT))
    replies: list[Any] = []
    early = Chunk(transfer=1, nonce=b"n" * 16, number=0, start=0, tokens=1, generation=1, crcs=(0,) * 4)
    pair.receiver.receive(early, memoryview(b""), replies.append)
    assert replies[0].cause == "order"
    pair.receiver.receive(Abort(transfer=77, nonce=b"", reason=""), memoryview(b""), replies.append)
    assert len(replies) == 1


def test_pages_with_wrong_sizes_are_refused() -> None:
    arrays, crcs = seal(Pool(3).export_kv(SlotAddress(64, 0), 0, 3))
    payload = memoryview(b"".join(item.tobytes() for item in arrays))
    assert len(unseal(payload, crcs, LAYERS, 3)) == 2
    for bad, sums, tokens in ((payload[:-1], crcs, 3), (payload, crcs[:-1], 3), (payload, crcs, 2)):
        with pytest.raises(TransferError, match="expected"):
            unseal(bad, sums, LAYERS, tokens)


def test_planted_faults_change_what_is_written_and_an_unknown_one_is_refused() -> None:
    for fault in ("last_row", "first_rows"):
        pair = Pair(plant=fault)
        pair.run()
        assert arrived(pair) and not np.array_equal(pair.source.keys[0][0, :TOKENS], pair.destination.keys[0][1, :TOKENS])
    with pytest.raises(InputError, match="last_row"):
        Plant("nonsense")


def test_the_manifest_names_every_field_of_the_binding() -> None:
    fields = {field.name for field in msgspec.structs.fields(TransferBinding)}
    assert {"nonce", "source_epoch", "destination_epoch", "chain", "request", "attempt", "tenant"} <= fields
    assert not dataclasses.is_dataclass(Reserve)
