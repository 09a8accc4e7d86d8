"""A hand-off without processes: sender and receiver with wires in memory, a clock by hand, a small engine that gives slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from inlay.engine.generations import Generations
from inlay.engine.heads import WHOLE, Share, heads_of
from inlay.engine.pages import Edge, decode_record
from inlay.engine.planted import Plant
from inlay.engine.receiving import Receiver
from inlay.engine.renewing import Renewer
from inlay.engine.sending import KV_FRAME, Sender
from inlay.errors import TransferError
from inlay.specs.device import ExpectTransfer, KvArrived, KvFailed, KvSent, OpenTransfer, Row, SlotAddress, TransferBinding
from inlay.specs.stage import KvLayer, StageShape
from inlay.transport import Frame

KEY = bytes(range(32))
LAYERS = (
    KvLayer(key_heads=4, key_dim=4, value_heads=4, value_dim=2),
    KvLayer(key_heads=2, key_dim=8, value_heads=2, value_dim=8),
)
SLOTS = 3
CAPACITY = 32
LEASE = 10.0


class Wire:
    """One end of a Channel in memory: frames as bytes, room for `limit` of them, broken by `cut`."""

    def __init__(self, limit: int = 1000) -> None:
        self.inbox: deque[tuple[int, bytes, bytes]] = deque()
        self.limit = limit
        self.other: Wire = self
        self.alive = True

    def fileno(self) -> int:
        return -1

    def send(self, kind: int, header: bytes, payload: Sequence[Any] = ()) -> bool:
        if not self.alive:
            raise TransferError("the channel is closed", cause="closed")
        if len(self.other.inbox) >= self.limit:
            return False
        if self.other.alive:
            self.other.inbox.append((kind, bytes(header), b"".join(memoryview(part).cast("B") for part in payload)))
        return True

    def receive(self) -> Frame | None:
        if self.inbox:
            kind, header, payload = self.inbox.popleft()
            return Frame(kind, header, memoryview(payload))
        if not self.alive or not self.other.alive:
            self.alive = False
            raise TransferError("the peer has gone", cause="closed")
        return None

    def close(self) -> None:
        self.alive = False


def wires(limit: int = 1000) -> tuple[Wire, Wire]:
    left, right = Wire(limit), Wire(limit)
    left.other, right.other = right, left
    return left, right


class Pool:
    """The KV of a runner that owns a share of the heads of all layers, float32 [slot, row, head, dim] by layer."""

    def __init__(self, share: Share = WHOLE, layers: tuple[KvLayer, ...] = LAYERS) -> None:
        self.keys = [np.zeros((SLOTS, CAPACITY, len(heads_of(share, item.key_heads)), item.key_dim), "f4") for item in layers]
        self.values = [
            np.zeros((SLOTS, CAPACITY, len(heads_of(share, item.value_heads)), item.value_dim), "f4") for item in layers
        ]
        self.while_read: Callable[[], None] | None = None

    def export_kv(self, slot: SlotAddress, start: int, count: int, layers: range) -> list[tuple[Any, Any]]:
        rows = slice(start, start + count)
        keys = [self.keys[i][slot.index, rows].copy() for i in layers]
        if self.while_read is not None:
            self.while_read()
        return list(zip(keys, [self.values[i][slot.index, rows].copy() for i in layers], strict=True))

    def written(self, slot: SlotAddress, start: int) -> tuple[SlotAddress, ...]:
        return (slot,)

    def import_kv(self, slot: SlotAddress, start: int, pages: Any, layers: range) -> None:
        for layer, (keys, values) in zip(layers, pages, strict=True):
            self.keys[layer][slot.index, start : start + len(keys)] = keys
            self.values[layer][slot.index, start : start + len(values)] = values

    def fill(self, slot: int, rows: slice, rng: np.random.Generator) -> None:
        """What a batch writes."""
        for array in (*self.keys, *self.values):
            array[slot, rows] = rng.normal(size=array[slot, rows].shape)

    def rows(self, slot: int, count: int) -> list[Any]:
        return [array[slot, :count].copy() for array in (*self.keys, *self.values)]


def binding(**fields: Any) -> TransferBinding:
    default = TransferBinding(
        transfer=1, request="r", sequence=5, attempt=0, nonce=b"n" * 16, source="a", source_epoch=1,
        destination="b", destination_epoch=1, tokens=11, chain=b"c" * 16, lease=LEASE,
    )  # fmt: skip
    return msgspec.structs.replace(default, **fields)


@dataclass
class End:
    """One process: its pool, its ledger of slots, what it has told the engine, and whether it runs."""

    pool: Pool
    generations: Generations = field(default_factory=Generations)
    reports: list[Any] = field(default_factory=list)
    free: set[int] = field(default_factory=lambda: set(range(SLOTS)))
    frozen: bool = False


class World:
    """Source `a` and destination `b`. `alter` sees every frame on its way: (from the source, frame) -> frames."""

    def __init__(
        self,
        *,
        source: Edge = Edge(),
        destination: Edge = Edge(),
        limit: int = 1000,
        plant: str = "none",
        plant_at_destination: str = "none",
        layers: tuple[KvLayer, ...] = LAYERS,
    ) -> None:
        self.now = 100.0
        self.alter: Callable[[bool, tuple[int, bytes, bytes]], list[tuple[int, bytes, bytes]]] | None = None
        self.a, self.b = End(Pool(source.share, layers)), End(Pool(destination.share, layers))
        self.limit = limit
        self.connects = 0
        self.unreachable = False
        self.into: Wire | None = None
        self.replies: deque[Any] = deque()
        self.renewer = Renewer()
        self.sender = Sender(
            self.a.pool, stage(source.share, layers), model_digest="m", key=KEY,  # type: ignore[arg-type]
            connect=self._connect, report=self.a.reports.append, edge=source, generations=self.a.generations,
            renewer=self.renewer, plant=Plant(plant), clock=lambda: self.now,
        )  # fmt: skip
        self.receiver = Receiver(
            self.b.pool, stage(destination.share, layers), name="b", epoch=1, model_digest="m", key=KEY,  # type: ignore[arg-type]
            report=self.b.reports.append, plant=Plant(plant_at_destination), edge=destination,
            generations=self.b.generations, clock=lambda: self.now,
        )  # fmt: skip

    def _connect(self, peer: str) -> None:
        self.connects += 1
        if self.unreachable:
            self.sender.channel_lost(peer, "cannot be reached")
            return
        out, self.into = wires(self.limit)
        self.sender.connected(peer, out)

    def begin(self, it: TransferBinding) -> tuple[int, int]:
        """Slots at both ends, the transfer announced and opened."""
        at_a, at_b = min(self.a.free), min(self.b.free)
        self.a.free.discard(at_a)
        self.b.free.discard(at_b)
        self.receiver.expect(ExpectTransfer(binding=it, slot=SlotAddress(CAPACITY, at_b)))
        self.sender.open(OpenTransfer(binding=it, slot=SlotAddress(CAPACITY, at_a)))
        return at_a, at_b

    def chunk(self, it: TransferBinding, at: int, start: int, count: int, rng: np.random.Generator) -> None:
        """One prompt chunk is computed at the source, and sealed."""
        self.a.generations.take(SlotAddress(CAPACITY, at), it.sequence)
        self.a.pool.fill(at, slice(start, start + count), rng)
        row = Row(
            sequence=it.sequence, slot=at, tokens=(0,) * count, past_length=start, transfer=it.transfer,
            commit=start + count == it.tokens,
        )  # fmt: skip
        self.sender.row_done(row, SlotAddress(CAPACITY, at))

    def pump(self, rounds: int = 4) -> None:
        """Both main loops, as far as they are not frozen."""
        for _ in range(rounds):
            if not self.b.frozen:
                self._pump_destination()
            if not self.a.frozen:
                self._pump_source()

    def pass_time(self, seconds: float, *, step: float = 1.0) -> None:
        """The clock goes on; renewals are sent, deadlines looked at after everything that came was read."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            if not self.a.frozen:
                self.renewer.renew(self.now)
            self.pump(2)
            if not self.a.frozen:
                self.sender.tick(self.now)
            if not self.b.frozen:
                self.receiver.tick(self.now)

    def _pump_destination(self) -> None:
        wire = self.into
        if wire is None:
            return
        try:
            while (frame := self._next(wire, from_source=True)) is not None:
                self.receiver.receive(decode_record(frame.header), frame.payload, self.replies.append)
            while self.replies and wire.send(KV_FRAME, msgspec.msgpack.encode(self.replies[0])):
                self.replies.popleft()
        except TransferError as error:
            wire.close()
            self.into = None
            self.replies.clear()
            self.receiver.source_lost("a", error.message)

    def _pump_source(self) -> None:
        for name, channel in list(self.sender.channels.items()):
            wire: Any = channel._channel  # type: ignore[attr-defined]
            try:
                while (frame := self._next(wire, from_source=False)) is not None:
                    self.sender.receive(decode_record(frame.header))
                self.sender.flush()
            except TransferError as error:
                self.sender.channel_lost(name, error.message)

    def _next(self, wire: Wire, *, from_source: bool) -> Frame | None:
        if self.alter is not None and wire.inbox:
            first = wire.inbox.popleft()
            wire.inbox.extendleft(reversed(self.alter(from_source, first)))
            if not wire.inbox:
                return None
        return wire.receive()

    def outcome(self, transfer: int = 1) -> str:
        """What the destination's engine has been told: "arrived", a cause of either end, or "" for nothing yet."""
        for report in (*self.b.reports, *self.a.reports):
            if isinstance(report, KvFailed | KvArrived) and report.transfer == transfer:
                return report.cause if isinstance(report, KvFailed) else "arrived"
        return ""

    def sent(self) -> bool:
        return any(isinstance(report, KvSent) for report in self.a.reports)


def stage(share: Share, layers: tuple[KvLayer, ...] = LAYERS) -> StageShape:
    """The stage of a process that owns this share."""
    own = tuple(
        msgspec.structs.replace(
            item, key_heads=len(heads_of(share, item.key_heads)), value_heads=len(heads_of(share, item.value_heads))
        )
        for item in layers
    )
    return StageShape(vocabulary=10, layers=own)
