"""Ten thousand hand-offs with a random fault each: never a wrong row, never a transfer that does not end, nothing kept."""

from __future__ import annotations

import collections
import random
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from handoff_world import CAPACITY, LEASE, SLOTS, World, binding

from inlay.engine.pages import Edge, decode_record
from inlay.specs.device import KvArrived, KvFailed, Row, SlotAddress, TransferBinding
from inlay.specs.kv import Chunk, Reserve
from inlay.specs.stage import KvLayer

Packed = tuple[int, bytes, bytes]
RUNS = 10_000
BATCHES = 20
SMALL = (KvLayer(key_heads=2, key_dim=2, value_heads=1, value_dim=3),)
WIRE = (
    "none",
    "flip_payload",
    "flip_header",
    "lose",
    "double",
    "swap",
    "cut",
    "pad",
    "other_nonce",
    "stale_epoch",
    "other_request",
    "replay",
    "forge",
    "link_ends",
)
ENDS = (
    "freeze_source",
    "freeze_destination",
    "kill_source",
    "kill_destination",
    "reuse_at_source",
    "reuse_while_read",
    "reuse_at_destination",
    "abort",
    "thaw_source",
)


class Fault:
    """One fault at a random point: on the wire at the n-th frame of either direction, or at an end after the n-th chunk."""

    def __init__(self, kind: str, rng: random.Random, old: list[Packed]) -> None:
        self.kind, self.rng, self.old = kind, rng, old
        self.at = 0 if kind in ("stale_epoch", "other_request") else rng.randrange(7)
        self.backwards = rng.random() < 0.3 and kind in ("flip_header", "lose", "double", "swap", "link_ends")
        self.seen = 0
        self.held: list[Packed] = []
        self.done = False

    def on_wire(self, world: World, from_source: bool, frame: Packed) -> list[Packed]:
        held, self.held = self.held, []
        if self.kind not in WIRE or from_source == self.backwards or self.done:
            return [frame, *held]
        self.seen += 1
        if self.seen <= self.at or not self._applies(frame):
            return [frame, *held]
        self.done = True
        return [*self._changed(world, frame), *held]

    def _applies(self, frame: Packed) -> bool:
        return bool(frame[2]) if self.kind in ("flip_payload", "cut", "pad", "forge") else True

    def _changed(self, world: World, frame: Packed) -> list[Packed]:
        kind, header, payload = frame
        match self.kind:
            case "flip_payload":
                return [(kind, header, self._flipped(payload))]
            case "flip_header":  # the frame's own crc would see it: here as if that had not been there
                return [(kind, self._flipped(header), payload)]
            case "lose":
                return []
            case "double":
                return [frame, frame]
            case "swap":
                self.held = [frame]
                return []
            case "cut":
                return [(kind, header, payload[: self.rng.randrange(len(payload))])]
            case "pad":
                return [(kind, header, payload + bytes(self.rng.randrange(1, 9)))]
            case "replay":
                return [*self.rng.sample(self.old, min(3, len(self.old))), frame]
            case "forge":
                return [self._forged(frame)]
            case "link_ends":
                assert world.into is not None
                world.into.close()
                return []
            case "none":
                return [frame]
            case _:
                return [(kind, self._rewritten(header), payload)]

    def _rewritten(self, header: bytes) -> bytes:
        record: Any = decode_record(header)
        if self.kind == "other_nonce" and not isinstance(record, Reserve):
            record = msgspec.structs.replace(record, nonce=self.rng.randbytes(16))
        elif isinstance(record, Reserve):
            changes = {
                "other_nonce": {"nonce": self.rng.randbytes(16)},
                "stale_epoch": {"destination_epoch": 0},
                "other_request": {"request": "another", "sequence": 77},
            }
            changed = msgspec.structs.replace(record.binding, **changes[self.kind])
            record = msgspec.structs.replace(record, binding=changed)
        else:
            self.done = False
        return msgspec.msgpack.encode(record)

    def _forged(self, frame: Packed) -> Packed:
        """Other bytes with checksums that fit them: what only the keyed root can see."""
        record = decode_record(frame[1])
        assert isinstance(record, Chunk)
        size = len(frame[2]) // record.tokens
        keys = 4 * SMALL[0].key_heads * SMALL[0].key_dim * record.tokens
        payload = self.rng.randbytes(size * record.tokens)
        crcs = (zlib.crc32(payload[:keys]), zlib.crc32(payload[keys:]))
        return (frame[0], msgspec.msgpack.encode(msgspec.structs.replace(record, crcs=crcs)), payload)

    def _flipped(self, data: bytes) -> bytes:
        at = self.rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :]

    def at_end(self, world: World, chunk: int, slots: tuple[int, int], it: TransferBinding) -> None:
        """What happens to a process or its slots after this many chunks."""
        if self.kind not in ENDS or chunk != self.at % 5:
            return
        at_a, at_b = SlotAddress(CAPACITY, slots[0]), SlotAddress(CAPACITY, slots[1])
        match self.kind:
            case "freeze_source" | "thaw_source":
                world.a.frozen = True
            case "freeze_destination":
                world.b.frozen = True
            case "kill_source" | "kill_destination":
                end = world.a if self.kind == "kill_source" else world.b
                end.frozen = True
                if world.into is not None:
                    world.into.alive = world.into.other.alive = False
                    world.into.inbox.clear()
            case "reuse_at_source":
                self._reuse(world, at_a)
            case "reuse_while_read":
                world.a.pool.while_read = lambda: self._reuse(world, at_a)
            case "reuse_at_destination":
                world.b.generations.take(at_b, 99)
                world.b.pool.fill(at_b.index, slice(0, CAPACITY), np.random.default_rng(2))
            case "abort":
                if self.rng.random() < 0.5:
                    world.sender.abort(it.transfer, "test")
                else:
                    world.receiver.abort(it.transfer)

    @staticmethod
    def _reuse(world: World, slot: SlotAddress) -> None:
        """Another sequence gets the slot of the source and writes into it."""
        world.a.generations.take(slot, 99)
        world.a.pool.fill(slot.index, slice(0, CAPACITY), np.random.default_rng(1))


def one_run(seed: int, kind: str, old: list[Packed]) -> str:
    """A hand-off with one fault; how it ended. Asserts everything that must hold whatever the fault."""
    rng = random.Random(seed)
    data = np.random.default_rng(seed)
    stored = rng.choice(["float32", "bfloat16"])
    world = World(source=Edge(stored=stored), limit=rng.choice([1, 2, 5, 1000]), layers=SMALL)
    fault = Fault(kind, rng, old)
    kept: list[Packed] = []

    def alter(from_source: bool, frame: Packed) -> list[Packed]:
        if from_source:
            kept.append(frame)
        return fault.on_wire(world, from_source, frame)

    world.alter = alter
    tokens = rng.randint(1, CAPACITY)
    it = binding(tokens=tokens, transfer=seed % 3, nonce=rng.randbytes(16), sequence=seed % 7, request=f"r{seed}")
    slots = world.begin(it)
    truth = prompt_of(world, slots[0], tokens, stored, data)
    done = chunks = 0
    while done < tokens and not world.a.frozen:
        count = min(rng.randint(1, 9), tokens - done)
        write(world, slots[0], done, count, truth)
        fault.at_end(world, chunks, slots, it)
        if world.a.frozen:
            break
        seal(world, it, slots[0], done, count)
        done, chunks = done + count, chunks + 1
        if rng.random() < 0.7:
            world.pump(rng.randint(1, 3))
    fault.at_end(world, fault.at % 5 if chunks <= fault.at % 5 else -1, slots, it)
    world.pump(20)
    settle(world, fault, it, slots, truth)
    old[:] = [*kept[:2], *kept[-4:]]
    return world.outcome(it.transfer) or "aborted"


def prompt_of(world: World, slot: int, tokens: int, stored: str, data: np.random.Generator) -> list[Any]:
    """The KV that the prompt's rows have, in what the source's pool can hold."""
    rows = []
    for array in (*world.a.pool.keys, *world.a.pool.values):
        values = data.normal(size=(tokens, *array.shape[2:])).astype("f4")
        rows.append((values.view("u4") & (0xFFFF0000 if stored == "bfloat16" else 0xFFFFFFFF)).view("f4"))
    return rows


def write(world: World, slot: int, start: int, count: int, truth: list[Any]) -> None:
    """What a batch does: rows of the prompt lie in the slot."""
    for array, rows in zip((*world.a.pool.keys, *world.a.pool.values), truth, strict=True):
        array[slot, start : start + count] = rows[start : start + count]


def seal(world: World, it: TransferBinding, slot: int, start: int, count: int) -> None:
    """What follows a batch: the sender is told of its row."""
    row = Row(
        sequence=it.sequence, slot=slot, tokens=(0,) * count, past_length=start, transfer=it.transfer,
        commit=start + count == it.tokens,
    )  # fmt: skip
    world.sender.row_done(row, SlotAddress(CAPACITY, slot))


def settle(world: World, fault: Fault, it: TransferBinding, slots: tuple[int, int], truth: list[Any]) -> None:
    """The engine's part: it hears both ends, gives the scheduler's lease, ends the transfer at both, and looks."""
    world.pass_time(4 * LEASE, step=2.0)
    if fault.kind != "abort":  # which the engine tells both ends; here one only
        open_now = (0 if world.a.frozen else world.sender.open_count, 0 if world.b.frozen else world.receiver.open_count)
        assert open_now == (0, 0), f"{fault.kind}: a transfer is still open after four leases"
    outcome = world.outcome(it.transfer)
    after = world.b.pool.rows(slots[1], CAPACITY)
    if outcome == "arrived":
        assert fault.kind != "reuse_at_destination" or fault.at % 5 > 0
        mine = world.b.pool.rows(slots[1], it.tokens)
        if fault.kind != "reuse_at_destination":
            assert same(mine, truth), f"{fault.kind}: a wrong row"
    world.sender.abort(it.transfer, "over")
    world.receiver.abort(it.transfer)
    world.a.frozen = world.b.frozen = False  # a thawed process finds its transfer fenced off
    world.pump(10)
    world.pass_time(LEASE, step=LEASE)
    assert same(after, world.b.pool.rows(slots[1], CAPACITY)), f"{fault.kind}: a row was written after the end"
    assert world.sender.open_count == world.receiver.open_count == 0 and world.renewer.beats == ()
    told = [report for report in (*world.a.reports, *world.b.reports) if isinstance(report, KvFailed | KvArrived)]
    assert sum(isinstance(report, KvArrived) for report in told) <= 1
    for end, slot in ((world.a, slots[0]), (world.b, slots[1])):
        end.free.add(slot)
        assert end.free == set(range(SLOTS))


def same(one: list[Any], other: list[Any]) -> bool:
    """Bit by bit: what a forger writes need not be numbers."""
    return all(np.array_equal(a.view("u4"), b.view("u4")) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_faults_end_every_transfer_and_never_leave_a_wrong_row(batch) -> None:
    old: list[Packed] = []
    ends: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    kinds = (*WIRE, *ENDS)
    for run in range(RUNS // BATCHES):
        seed = batch * RUNS + run
        kind = kinds[run % len(kinds)]
        ends[kind][one_run(seed, kind, old)] += 1
    print({kind: dict(counter) for kind, counter in ends.items()})
    assert set(ends["none"]) == {"arrived"} and set(ends["replay"]) == {"arrived"}
    assert set(ends["stale_epoch"]) == set(ends["other_request"]) == {"binding"}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["reuse_at_source", "reuse_while_read"])
def test_a_slot_that_is_reused_before_or_while_it_is_read_is_caught_every_time(kind) -> None:
    """Whatever did not arrive whole failed; `one_run` asserts that what arrived is the prompt's, bit by bit."""
    ends = collections.Counter(one_run(seed, kind, []) for seed in range(RUNS))
    print(kind, dict(ends))
    assert ends.keys() <= {"arrived", "aborted", "generation", "lease"} and ends["aborted"] + ends["generation"] > RUNS // 2


@pytest.mark.parametrize(
    ("kind", "door", "name"),
    [
        ("flip_payload", "inlay.engine.pages", "zlib.crc32"),
        ("forge", "inlay.engine.pages", "Root.value"),
        ("reuse_at_source", "inlay.engine.generations", "Generations.check"),
        ("reuse_while_read", "inlay.engine.generations", "Generations.check"),
    ],
)
def test_with_a_check_taken_out_the_same_runs_find_wrong_rows(kind, door, name, monkeypatch) -> None:
    monkeypatch.setattr(f"{door}.{name}", {"Root.value": lambda root: b"", "zlib.crc32": lambda *data: 7}.get(name, nothing))
    with pytest.raises(AssertionError, match="a wrong row"):
        for seed in range(200):
            one_run(seed, kind, [])


def nothing(*given: Any) -> None:
    """A check that looks at nothing."""
