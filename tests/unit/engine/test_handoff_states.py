"""Leases, credits, generations, precision, heads and quarantine of a hand-off: every state ends, and ends with its reason."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from handoff_world import CAPACITY, LAYERS, LEASE, Pool, World, binding

from inlay.engine.generations import Generations
from inlay.engine.heads import common_share, heads_of
from inlay.engine.pages import HEADER_LIMIT, Edge, decode_record, token_bytes
from inlay.engine.quarantine import FAILURES, SECONDS, Quarantine
from inlay.engine.renewing import Beat, Renewer
from inlay.errors import TransferError
from inlay.specs.device import KvArrived, OpenTransfer, Row, SlotAddress
from inlay.specs.kv import Chunk, Grant, KvRecord, KvTransfer, Renew, Reserve, Rope, Taken

RNG = np.random.default_rng(7)


def hand_over(world: World, *, chunks: tuple[int, ...] = (4, 4, 3), it=None) -> tuple[int, int]:
    it = it or binding(tokens=sum(chunks))
    at_a, at_b = world.begin(it)
    start = 0
    for count in chunks:
        world.pump()
        world.chunk(it, at_a, start, count, RNG)
        start += count
    world.pump()
    return at_a, at_b


def equal(world: World, at_a: int, at_b: int, rows: int) -> bool:
    pairs = zip(world.a.pool.rows(at_a, rows), world.b.pool.rows(at_b, rows), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def test_a_source_that_falls_silent_in_the_middle_ends_with_its_lease_at_the_destination() -> None:
    world = World()
    it = binding()
    at_a, _ = world.begin(it)
    world.chunk(it, at_a, 0, 4, RNG)
    world.pump()
    world.a.frozen = True
    world.pass_time(LEASE - 1)
    assert world.outcome() == ""
    world.pass_time(2)
    assert world.outcome() == "lease" and world.receiver.open_count == 0


def test_a_slow_source_keeps_its_lease_by_renewing_it_for_as_long_as_it_takes() -> None:
    world = World()
    it = binding()
    at_a, at_b = world.begin(it)
    for start, count in ((0, 4), (4, 4), (8, 3)):
        world.pass_time(20 * LEASE)
        world.chunk(it, at_a, start, count, RNG)
    world.pump()
    assert world.outcome() == "arrived" and world.sent() and equal(world, at_a, at_b, 11)


def test_renewals_stop_when_the_process_does_and_go_out_three_times_a_lease() -> None:
    renewed: list[float] = []
    world = World()
    world.alter = lambda from_source, frame: (
        (renewed.append(world.now) if from_source and isinstance(decode_record(frame[1]), Renew) else None) or [frame]
    )
    world.begin(binding())
    world.pump()
    world.pass_time(3 * LEASE, step=0.5)
    assert 8 <= len(renewed) <= 9
    world.sender.abort(1, "test")
    world.pass_time(LEASE)
    assert len(renewed) <= 9 and world.renewer.beats == ()


def test_a_destination_that_falls_silent_ends_the_transfer_at_the_source() -> None:
    world = World()
    it = binding()
    at_a, _ = world.begin(it)
    world.pump()
    world.b.frozen = True
    world.pass_time(9 * LEASE)
    assert world.outcome() == ""  # it owes nothing yet
    for start, count in ((0, 4), (4, 4), (8, 3)):
        world.chunk(it, at_a, start, count, RNG)
    world.pass_time(3 * LEASE - 1)
    assert world.outcome() == ""
    world.pass_time(2)
    assert world.outcome() == "lease" and world.sender.open_count == 0


def test_a_manifest_that_never_comes_ends_at_the_destination_a_grant_that_never_comes_at_the_source() -> None:
    for end in ("a", "b"):
        world = World()
        getattr(world, end).frozen = True
        if end == "a":
            world.sender._connect = lambda peer: None
        world.begin(binding())
        world.pass_time(3 * LEASE + 2)
        assert world.outcome() == "lease"


def test_a_destination_that_cannot_be_reached_is_a_failure_at_once() -> None:
    world = World()
    world.unreachable = True
    world.begin(binding())
    assert world.outcome() == "channel_lost" and world.sender.open_count == 0


def test_no_more_chunks_are_under_way_than_the_destination_has_given_credits_for() -> None:
    world = World()
    credits = 2

    def fewer(from_source: bool, frame: tuple[int, bytes, bytes]) -> list[tuple[int, bytes, bytes]]:
        record = decode_record(frame[1])
        if isinstance(record, Grant):
            frame = (frame[0], msgspec.msgpack.encode(msgspec.structs.replace(record, credits=credits)), frame[2])
        return [frame]

    world.alter = fewer
    it = binding(tokens=20)
    at_a, at_b = world.begin(it)
    world.pump()
    world.b.frozen = True
    for start in range(20):
        world.chunk(it, at_a, start, 1, RNG)
    world.pump()
    assert world.into is not None
    records = [decode_record(header) for _, header, _ in world.into.inbox]
    assert sum(isinstance(record, Chunk) for record in records) == credits
    assert not world.sender.waiting
    world.b.frozen = False
    world.pump(40)
    assert world.outcome() == "arrived" and equal(world, at_a, at_b, 20)


def test_a_destination_that_claims_to_have_taken_more_than_was_sent_gets_no_more_credit_for_it() -> None:
    world = World()
    it = binding(tokens=20)
    at_a, _ = world.begin(it)
    world.pump()
    world.b.frozen = True
    world.sender.receive(Taken(transfer=1, nonce=it.nonce, chunks=10**6))
    for start in range(20):
        world.chunk(it, at_a, start, 1, RNG)
    assert world.into is not None and sum(isinstance(decode_record(item[1]), Chunk) for item in world.into.inbox) == 8


def test_a_full_wire_holds_the_rest_back_and_nothing_is_lost() -> None:
    world = World(limit=1)
    at_a, at_b = hand_over(world, chunks=(1,) * 11)
    world.pump(60)
    assert world.outcome() == "arrived" and equal(world, at_a, at_b, 11)


def test_a_slot_that_another_sequence_takes_before_it_was_read_ends_the_transfer() -> None:
    """The bytes are whole and their checksums would fit: only the generation says that they are not the prompt's."""
    world = World()
    it = binding()
    at_a, _ = world.begin(it)
    world.chunk(it, at_a, 0, 4, RNG)
    world.a.generations.take(SlotAddress(CAPACITY, at_a), 99)
    row = Row(sequence=5, slot=at_a, tokens=(0,) * 7, past_length=4, transfer=1, commit=True)
    world.sender.row_done(row, SlotAddress(CAPACITY, at_a))
    world.pump()
    assert [report.cause for report in world.a.reports] == ["generation"]
    assert not any(isinstance(report, KvArrived) for report in world.b.reports)
    assert world.receiver.open_count == world.sender.open_count == 0


def test_a_slot_that_changes_hands_while_it_is_read_ends_the_transfer_as_well() -> None:
    world = World()
    it = binding()
    at_a, _ = world.begin(it)
    world.a.pool.while_read = lambda: world.a.generations.take(SlotAddress(CAPACITY, at_a), 99) and None
    world.chunk(it, at_a, 0, 11, RNG)
    world.pump()
    assert [report.cause for report in world.a.reports] == ["generation"] and world.outcome() == "aborted"


def test_a_destinations_slot_that_was_given_away_is_not_written() -> None:
    world = World()
    it = binding()
    at_a, at_b = world.begin(it)
    world.pump()
    world.b.generations.take(SlotAddress(CAPACITY, at_b), 99)
    before = world.b.pool.rows(at_b, CAPACITY)
    world.chunk(it, at_a, 0, 11, RNG)
    world.pump()
    assert world.outcome() == "generation"
    assert all(np.array_equal(a, b) for a, b in zip(before, world.b.pool.rows(at_b, CAPACITY), strict=True))


def test_the_ledger_counts_changes_of_hands_and_nothing_else() -> None:
    ledger = Generations()
    assert [ledger.take("s", number) for number in (1, 1, 2, 2, 1)] == [1, 1, 2, 2, 3]
    assert ledger.take("t", 0) == 1
    ledger.check("s", 3)
    with pytest.raises(TransferError, match="generation 3, expected 2"):
        ledger.check("s", 2)


def test_rows_that_were_there_already_travel_with_the_first_chunk() -> None:
    """A prefix that the source did not have to compute for this sequence is sent all the same."""
    world = World()
    it = binding()
    at_a, at_b = world.begin(it)
    world.a.pool.fill(at_a, slice(0, 6), RNG)
    world.pump()
    world.chunk(it, at_a, 6, 5, RNG)
    world.pump()
    assert world.outcome() == "arrived" and equal(world, at_a, at_b, 11)


def test_rows_that_the_destination_has_already_do_not_travel_and_are_not_written() -> None:
    world = World()
    it = binding(start=6)
    at_a, at_b = world.begin(it)
    mine = world.b.pool.rows(at_b, 6)
    for start, count in ((0, 4), (4, 4), (8, 3)):
        world.chunk(it, at_a, start, count, RNG)
        world.pump()
    [arrived] = [report for report in world.b.reports if isinstance(report, KvArrived)]
    assert (arrived.tokens, arrived.chunks, arrived.size) == (11, 2, 5 * token_bytes(LAYERS))
    assert all(np.array_equal(a, b) for a, b in zip(mine, world.b.pool.rows(at_b, 6), strict=True))
    for a, b in zip(world.a.pool.rows(at_a, 11), world.b.pool.rows(at_b, 11), strict=True):
        assert np.array_equal(a[6:], b[6:])


@pytest.mark.parametrize(
    ("source", "destination", "cause"),
    [
        (Edge(stored="float32"), Edge(stored="bfloat16"), "lossy"),
        (Edge(stored="float16"), Edge(stored="bfloat16"), "lossy"),
        (Edge(allowed=KvTransfer(dtype="int8", lossy=True)), Edge(), "lossy"),
        (Edge(allowed=KvTransfer(dtype="bfloat16", lossy=True)), Edge(), "lossy"),
        (Edge(allowed=KvTransfer(dtype="bfloat16")), Edge(), "lossy"),
        (Edge(rope=Rope(convention="half", theta=1e4)), Edge(rope=Rope(convention="half", theta=5e5)), "rope"),
    ],
)
def test_what_the_deployment_does_not_allow_is_refused_in_the_handshake(source, destination, cause) -> None:
    world = World(source=source, destination=destination)
    before = world.b.pool.rows(0, CAPACITY)
    hand_over(world)
    assert world.outcome() == cause
    assert all(np.array_equal(a, b) for a, b in zip(before, world.b.pool.rows(0, CAPACITY), strict=True))


LOSSY = KvTransfer(lossy=True)


@pytest.mark.parametrize(
    ("source", "destination", "conversion", "bound"),
    [
        (Edge(stored="float32", allowed=LOSSY), Edge(stored="bfloat16", allowed=LOSSY), "float32>bfloat16", 2.0**-8),
        (
            Edge(allowed=KvTransfer(lossy=True, dtype="bfloat16")),
            Edge(allowed=LOSSY),
            "float32>bfloat16 bfloat16>float32",
            2.0**-8,
        ),
        (Edge(allowed=KvTransfer(lossy=True, dtype="int8")), Edge(allowed=LOSSY), "float32>int8 int8>float32", 4 / 127),
    ],
)
def test_where_it_is_allowed_precision_is_lost_within_its_bound_and_the_conversion_is_told(
    source, destination, conversion, bound
) -> None:
    world = World(source=source, destination=destination)
    at_a, at_b = hand_over(world)
    [arrived] = [report for report in world.b.reports if isinstance(report, KvArrived)]
    assert arrived.conversion == conversion
    for mine, theirs in zip(world.a.pool.rows(at_a, 11), world.b.pool.rows(at_b, 11), strict=True):
        assert not np.array_equal(mine, theirs) and np.abs(mine - theirs).max() <= bound * np.abs(mine).max()


def test_keys_of_the_other_convention_are_put_in_order_on_their_way_in_and_values_are_not() -> None:
    world = World(source=Edge(rope=Rope(convention="interleaved")), destination=Edge(rope=Rope(convention="half")))
    at_a, at_b = hand_over(world)
    assert world.b.reports[0].conversion == "rope"
    layers = len(LAYERS)
    mine, theirs = world.a.pool.rows(at_a, 11), world.b.pool.rows(at_b, 11)
    for number in range(layers):
        dim = LAYERS[number].key_dim
        order = [*range(0, dim, 2), *range(1, dim, 2)]
        assert np.array_equal(theirs[number], mine[number][..., order])
        assert np.array_equal(theirs[layers + number], mine[layers + number])


@pytest.mark.parametrize(("sources", "destinations"), [(1, 2), (1, 4), (2, 1), (4, 2), (2, 4), (3, 2)])
def test_heads_go_where_they_are_owned_whatever_the_degrees_at_both_ends(sources, destinations) -> None:
    """Every pair of processes with heads in common is a transfer of its own; 2 heads over 4 processes are replicated."""
    whole = Pool()
    whole.fill(0, slice(0, 11), RNG)
    for j in range(destinations):
        mine = (j, j + 1, destinations)
        got: Pool | None = None
        for i in range(sources):
            theirs = (i, i + 1, sources)
            part = common_share(theirs, mine)
            if part is None:
                continue
            world = World(source=Edge(share=theirs, whole=LAYERS), destination=Edge(share=mine, whole=LAYERS))
            if got is not None:
                world.b.pool.keys, world.b.pool.values = got.keys, got.values
            got = world.b.pool
            it = binding(heads=part)
            world.begin(it)
            world.pump()
            for own, every in zip((*world.a.pool.keys, *world.a.pool.values), (*whole.keys, *whole.values), strict=True):
                held = heads_of(theirs, every.shape[2])
                own[0] = every[0][:, held.start : held.stop]
            world.sender.row_done(
                Row(sequence=5, slot=0, tokens=(0,) * 11, past_length=0, transfer=1, commit=True), SlotAddress(CAPACITY, 0)
            )
            world.pump()
            assert world.outcome() == "arrived"
        assert got is not None
        for found, every in zip((*got.keys, *got.values), (*whole.keys, *whole.values), strict=True):
            held = heads_of(mine, every.shape[2])
            assert np.array_equal(found[0, :11], every[0, :11, held.start : held.stop])


def test_heads_that_an_end_does_not_own_are_refused_there() -> None:
    world = World(source=Edge(share=(0, 1, 2), whole=LAYERS), destination=Edge(share=(0, 1, 2), whole=LAYERS))
    world.sender.open(OpenTransfer(binding=binding(heads=(1, 2, 2)), slot=SlotAddress(CAPACITY, 0)))
    assert world.outcome() == "heads"


def test_three_damaged_transfers_in_ten_minutes_put_the_source_into_quarantine_until_they_are_over() -> None:
    world = World()

    def flip(from_source: bool, frame: tuple[int, bytes, bytes]) -> list[tuple[int, bytes, bytes]]:
        return [(frame[0], frame[1], bytes([frame[2][0] ^ 1]) + frame[2][1:]) if frame[2] else frame]

    def once(number: int) -> str:
        it = binding(transfer=number, nonce=number.to_bytes(16, "little"), sequence=number)
        at_a, at_b = hand_over(world, it=it)
        world.a.free.add(at_a)
        world.b.free.add(at_b)
        return world.outcome(number)

    world.alter = flip
    assert [once(number) for number in range(1, 5)] == ["checksum"] * FAILURES + ["quarantined"]
    world.alter = None
    assert once(5) == "quarantined"
    world.now += SECONDS + 1
    assert once(6) == "arrived"


def test_only_faults_of_integrity_count_and_only_against_their_source() -> None:
    it = Quarantine()
    for cause in ("lease", "channel_lost", "aborted", "lossy", "model"):
        assert not any(it.failed("a", cause, now=1.0) for _ in range(5))
    assert [it.failed("a", "checksum", now=float(now)) for now in (0, 300, 599)] == [False, False, True]
    assert not it.holds("b", now=600) and it.holds("a", now=600) and not it.holds("a", now=601)
    assert it.failed("a", "digest", now=650.0)


def test_a_record_too_large_or_not_a_record_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(TransferError) as caught:
        decode_record(bytes(HEADER_LIMIT + 1))
    assert caught.value.cause == "size"
    for data in (b"", b"\xc1", msgspec.msgpack.encode({"type": "nonsense"}), msgspec.msgpack.encode([1, 2])):
        with pytest.raises(TransferError) as caught:
            decode_record(data)
        assert caught.value.cause == "header"
    assert issubclass(Reserve, msgspec.Struct) and KvRecord


def test_the_thread_that_renews_sends_each_beat_in_its_own_time_and_survives_a_lost_channel() -> None:
    class Broken:
        def send(self, kind: int, header: bytes, payload: object = ()) -> bool:
            raise TransferError("gone", cause="closed")

    class Kept:
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def send(self, kind: int, header: bytes, payload: object = ()) -> bool:
            self.sent.append(header)
            return True

    kept, it = Kept(), Renewer()
    it.beats = (Beat(Broken(), 2, b"x", 1.0), Beat(kept, 2, b"y", 2.0), Beat(kept, 2, b"z", 3.0))  # type: ignore[arg-type]
    for now in range(7):
        it.renew(float(now))
    assert kept.sent == [b"y", b"z", b"y", b"y", b"z"]
    it.start()
    it.close()
    assert not it._thread.is_alive()
