"""Hand-offs between processes that cut the layers differently: parts over real channels, each checked for itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from inlay.engine.planted import Plant
from inlay.engine.receiving import Receiver
from inlay.engine.replica import Region, Replicas, Tell
from inlay.engine.sending import KV_FRAME, Sender
from inlay.specs.device import ExpectTransfer, KvArrived, KvFailed, OpenTransfer, Row, SlotAddress, TransferBinding
from inlay.specs.kv import Chunk, KvRecord, Reserve, Rope
from inlay.specs.stage import KvLayer, StageShape
from inlay.transport import accept, offer

LAYERS = tuple(KvLayer(key_heads=1 + i % 2, key_dim=4 + i, value_heads=2, value_dim=3) for i in range(5))
WHOLE = StageShape(vocabulary=10, layers=LAYERS)
KEY = bytes(range(32))
SLOT, OTHER = SlotAddress(64, 1), SlotAddress(64, 0)
TOKENS = 11


class Pool:
    """The KV part of a runner that owns some layers, as arrays [slot][row] by layer."""

    def __init__(self, stage: StageShape, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.keys = [rng.normal(size=(4, 64, item.key_heads, item.key_dim)).astype("f4") for item in stage.layers]
        self.values = [rng.normal(size=(4, 64, item.value_heads, item.value_dim)).astype("f4") for item in stage.layers]

    def export_kv(self, slot: SlotAddress, start: int, count: int, layers: range) -> list[tuple[Any, Any]]:
        rows = slice(start, start + count)
        return [(self.keys[i][slot.index, rows].copy(), self.values[i][slot.index, rows].copy()) for i in layers]

    def written(self, slot: SlotAddress, start: int) -> tuple[SlotAddress, ...]:
        return (slot,)

    def import_kv(self, slot: SlotAddress, start: int, pages: Any, layers: range) -> None:
        for layer, (keys, values) in zip(layers, pages, strict=True):
            self.keys[layer][slot.index, start : start + len(keys)] = keys
            self.values[layer][slot.index, start : start + len(values)] = values


class Processes:
    """Source and destination runners of several processes each, channels between all of them, pumped by hand."""

    def __init__(self, source: tuple[int, ...], destination: tuple[int, ...]) -> None:
        self.regions = {
            name: [Region(f"{name}:{low}", 1 + low, low, high) for low, high in pairwise(cuts)]
            for name, cuts in (("p", source), ("d", destination))
        }
        self.replicas = Replicas(self.regions)
        self.reports: list[tuple[str, Any]] = []
        self.events: list[Any] = []
        self.alter: Any = None
        self.pools: dict[str, Pool] = {}
        self.senders: dict[str, Sender] = {}
        self.receivers: dict[str, Receiver] = {}
        self.channels: dict[tuple[str, str], tuple[Any, Any]] = {}
        for seed, region in enumerate(item for items in self.regions.values() for item in items):
            stage = WHOLE.piece(region.first, region.end, hidden=3)
            pool = self.pools[region.place] = Pool(stage, seed)
            self.senders[region.place] = Sender(
                pool, stage, model_digest="m", key=KEY,  # type: ignore[arg-type]
                connect=lambda peer, me=region.place: self.connect(me, peer),  # type: ignore[misc]
                report=lambda message, me=region.place: self.reports.append((me, message)),  # type: ignore[misc]
            )  # fmt: skip
            self.receivers[region.place] = Receiver(
                pool, stage, name=region.place, epoch=region.epoch, model_digest="m", key=KEY,  # type: ignore[arg-type]
                report=lambda message, me=region.place: self.reports.append((me, message)), plant=Plant(),  # type: ignore[misc]
            )  # fmt: skip

    def connect(self, me: str, peer: str) -> None:
        left, right = socket.socketpair(socket.AF_UNIX)
        made: list[Any] = []
        thread = threading.Thread(target=lambda: made.append(accept(right)))
        thread.start()
        out = offer(left, 1 << 18)
        thread.join()
        self.channels[me, peer] = (out, made[0])
        self.senders[me].connected(peer, out)

    def close(self) -> None:
        for pair in self.channels.values():
            for channel in pair:
                channel.close()

    def tell(self, told: list[Tell]) -> None:
        for place, message in told:
            match message:
                case ExpectTransfer():
                    self.receivers[place].expect(message)
                case OpenTransfer():
                    self.senders[place].open(message)
                case _:
                    self.senders[place].abort(message.transfer, message.reason)  # type: ignore[union-attr]
                    self.receivers[place].abort(message.transfer)  # type: ignore[union-attr]

    def pump(self) -> None:
        for _ in range(20):
            for (source, destination), (out, into) in self.channels.items():
                while (frame := into.receive()) is not None:
                    record = msgspec.msgpack.decode(frame.header, type=KvRecord)
                    payload = bytes(frame.payload)
                    if self.alter is not None:
                        record, payload = self.alter(record, payload)
                    self.receivers[destination].receive(
                        record,
                        memoryview(payload),
                        lambda reply, to=into: to.send(KV_FRAME, msgspec.msgpack.encode(reply)),  # type: ignore[misc]
                    )
                while (frame := out.receive()) is not None:
                    self.senders[source].receive(msgspec.msgpack.decode(frame.header, type=KvRecord))
            while self.reports:
                for outcome in self.replicas.heard(*self.reports.pop(0)):
                    if isinstance(outcome, Tell):
                        self.tell([outcome])
                    else:
                        self.events.append(outcome)

    def run(self) -> None:
        binding = TransferBinding(
            transfer=70, request="r", sequence=5, attempt=0, nonce=b"n" * 16, source="p", source_epoch=0, destination="d",
            destination_epoch=0, tokens=TOKENS, chain=b"c" * 16, lease=10.0,
        )  # fmt: skip
        self.tell(self.replicas.send("d", ExpectTransfer(binding=binding, slot=SLOT)))
        self.tell(self.replicas.send("p", OpenTransfer(binding=binding, slot=OTHER)))
        for start, count, commit in ((0, 4, False), (4, 4, False), (8, 3, True)):
            row = Row(sequence=5, slot=0, tokens=(0,) * count, past_length=start, transfer=70, commit=commit)
            for region in self.regions["p"]:
                self.senders[region.place].row_done(row, OTHER)
            self.pump()

    def layer(self, name: str, number: int) -> tuple[Any, Any]:
        region = next(item for item in self.regions[name] if item.first <= number < item.end)
        pool, index = self.pools[region.place], number - region.first
        return pool.keys[index], pool.values[index]


MADE: list[Processes] = []


@pytest.fixture(autouse=True)
def _close_channels() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def processes(source: tuple[int, ...], destination: tuple[int, ...]) -> Processes:
    MADE.append(Processes(source, destination))
    return MADE[-1]


CUTS = [((0, 5), (0, 5)), ((0, 2, 5), (0, 5)), ((0, 5), (0, 3, 5)), ((0, 2, 4, 5), (0, 1, 3, 5))]


@pytest.mark.parametrize(("source", "destination"), CUTS)
def test_every_layers_rows_arrive_where_that_layer_is_whatever_the_cuts(source, destination) -> None:
    it = processes(source, destination)
    before = {number: [part.copy() for part in it.layer("d", number)] for number in range(5)}
    it.run()
    for number in range(5):
        for mine, theirs, old in zip(it.layer("p", number), it.layer("d", number), before[number], strict=True):
            assert np.array_equal(theirs[1, :TOKENS], mine[0, :TOKENS])
            assert np.array_equal(theirs[1, TOKENS:], old[1, TOKENS:]) and np.array_equal(theirs[[0, 2, 3]], old[[0, 2, 3]])
    arrived, sent = sorted(it.events, key=lambda event: type(event.message).__name__)
    size = sum(part.nbytes for number in range(5) for part in (pair[0, :TOKENS] for pair in it.layer("p", number)))
    assert (arrived.runner, sent.runner) == ("d", "p") and arrived.message.size == sent.message.size == size
    assert arrived.message.transfer == sent.message.transfer == 70 and it.replicas.open == 0
    assert not any(sender._open for sender in it.senders.values()) and not any(r._open for r in it.receivers.values())


def test_a_damaged_part_fails_the_hand_off_as_a_whole_and_leaves_nothing_open() -> None:
    it = processes((0, 2, 5), (0, 3, 5))
    broken: list[int] = []

    def flip(record: Any, payload: bytes) -> tuple[Any, bytes]:
        if isinstance(record, Chunk) and record.number == 1 and (not broken or broken == [record.transfer]):
            broken[:] = [record.transfer]
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        return record, payload

    it.alter = flip
    it.run()
    assert [event.message.cause for event in it.events] == ["checksum"] and it.events[0].message.transfer == 70
    assert not any(isinstance(event.message, KvArrived) for event in it.events)
    assert it.replicas.open == 0
    assert not any(sender._open for sender in it.senders.values()) and not any(r._open for r in it.receivers.values())


@pytest.mark.parametrize(
    ("fields", "cause"),
    [({"layers": (0, 1)}, "binding"), ({"part_of": 71}, "binding"), ({"source_epoch": 9}, "binding"), ({"transfer": 1}, None)],
)
def test_a_part_that_is_not_the_announced_one_is_refused(fields, cause) -> None:
    """The manifest's binding must be the announced one in every field, also in those that make it a part."""
    it = processes((0, 2, 5), (0, 5))

    def forge(record: Any, payload: bytes) -> tuple[Any, bytes]:
        if isinstance(record, Reserve) and record.binding.layers == (0, 2):
            record = msgspec.structs.replace(record, binding=msgspec.structs.replace(record.binding, **fields))
        return record, payload

    it.alter = forge
    it.run()
    assert not any(isinstance(event.message, KvArrived) for event in it.events)
    if cause is not None:
        assert [event.message.cause for event in it.events] == [cause]


def test_the_digest_covers_which_layers_a_part_holds() -> None:
    """Two parts of equal geometry may not be taken for each other: their bindings, and so their roots, differ."""
    it = processes((0, 5), (0, 5))
    it.run()
    part = TransferBinding(
        transfer=1, request="r", sequence=5, attempt=0, nonce=b"n" * 16, source="p", source_epoch=1, destination="d",
        destination_epoch=1, tokens=1, chain=b"c" * 16, lease=1.0, part_of=1, layers=(0, 1),
    )  # fmt: skip
    from inlay.engine.pages import Root

    def root(binding: TransferBinding) -> bytes:
        manifest = Reserve(
            version=2,
            model_digest="m",
            binding=binding,
            layers=LAYERS[:1],
            stored="float32",
            dtype="float32",
            conversion="",
            layout="x",
            rope=Rope(),
            generation=1,
            bytes_expected=4,
        )
        return Root(manifest, KEY).value()

    roots = {root(part), root(msgspec.structs.replace(part, layers=(1, 2))), root(msgspec.structs.replace(part, part_of=2))}
    assert len(roots) == 3


def test_a_transfer_of_layers_that_a_process_does_not_own_fails_at_that_end() -> None:
    it = processes((0, 2, 5), (0, 3, 5))
    binding = TransferBinding(
        transfer=0, request="r", sequence=5, attempt=0, nonce=b"n" * 16, source="p:0", source_epoch=1, destination="d:3",
        destination_epoch=4, tokens=3, chain=b"c" * 16, lease=10.0, part_of=70, layers=(1, 3),
    )  # fmt: skip
    it.senders["p:0"].open(OpenTransfer(binding=binding, slot=OTHER))
    it.receivers["d:3"].expect(ExpectTransfer(binding=binding, slot=SLOT))
    assert [(place, type(message), message.cause) for place, message in it.reports] == [
        ("p:0", KvFailed, "layers"), ("d:3", KvFailed, "layers")
    ]  # fmt: skip
    assert "expected layers within [0, 2]" in it.reports[0][1].message
