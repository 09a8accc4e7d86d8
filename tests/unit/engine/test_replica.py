"""Between runners and processes: messages go to all, answers become one, hand-offs travel in parts."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from inlay.engine.replica import Region, Replicas, Tell, join_facts
from inlay.errors import DeviceError
from inlay.specs.device import (
    AbortTransfer,
    BatchDone,
    BatchFailed,
    ExpectTransfer,
    KvArrived,
    KvFailed,
    KvSent,
    Move,
    OpenTransfer,
    Ping,
    Ready,
    RowResult,
    SlotAddress,
    Submit,
    TransferBinding,
)
from inlay.specs.precision import Precision
from inlay.specs.sampling import SampledToken
from inlay.specs.schedule import Answered, Lost
from inlay.specs.stage import KvLayer, StageShape

P, D = "a:0/x+a:1/y+a:2/z", "b:0/x+b:1/y"
PLACES = {P: ["a:0/x", "a:1/y", "a:2/z"], D: ["b:0/x", "b:1/y"]}
SLOT, OTHER = SlotAddress(16, 2), SlotAddress(32, 0)
SUBMIT = Submit(batch=7, phase="decode", capacity=16, first=0, count=1, width=1, rows=())


def regions(runner: str, cuts: tuple[int, ...]) -> list[Region]:
    """Processes that own the layers between neighbouring cuts; epochs tell them apart."""
    return [
        Region(place, 10 + index, cuts[index], cuts[index + 1])
        for index, place in enumerate(runner.split("+")[: len(cuts) - 1])
    ]


def replicas() -> Replicas:
    return Replicas({P: regions(P, (0, 2, 5, 8)), D: regions(D, (0, 3, 8))})


def binding(number: int = 40, **fields: Any) -> TransferBinding:
    default = TransferBinding(
        transfer=number, request="r", sequence=5, attempt=0, nonce=b"n" * 16, source=P, source_epoch=12, destination=D,
        destination_epoch=11, tokens=9, chain=b"c" * 16, lease=10.0,
    )  # fmt: skip
    return msgspec.structs.replace(default, **fields)


def done(start: float, end: float, *results: RowResult) -> BatchDone:
    return BatchDone(batch=7, results=results, started=start, ended=end, prompt_tokens=3)


def arrived(part: int, *, size: int = 10, start: float = 1.0, end: float = 2.0) -> KvArrived:
    return KvArrived(transfer=part, sequence=5, tokens=9, size=size, chunks=2, started=start, ended=end)


def test_every_process_of_a_runner_is_told_what_the_runner_is_told() -> None:
    it = replicas()
    for message in (SUBMIT, Move(sequence=1, source=SLOT, destination=OTHER, length=3), Ping()):
        assert it.send(P, message) == [Tell(place, message) for place in PLACES[P]]


def test_a_batch_is_done_once_all_have_reported_with_the_results_of_the_last_and_the_whole_time() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        it = replicas()
        it.send(P, SUBMIT)
        token = RowResult(sequence=5, sampled=(SampledToken(token=11),))
        reports = [done(1.0, 2.0, RowResult(sequence=5)), done(2.5, 3.0, RowResult(sequence=5)), done(3.5, 4.0, token)]
        outcomes = [it.heard(PLACES[P][index], reports[index]) for index in order]
        assert outcomes == [[], [], [Answered(P, done(1.0, 4.0, token))]]
        assert it.open == 0


def test_the_first_failure_of_a_batch_counts_and_what_else_is_said_of_it_is_swallowed() -> None:
    it = replicas()
    it.send(P, SUBMIT)
    assert it.heard("a:0/x", done(1.0, 2.0)) == []
    failed = BatchFailed(batch=7, code="out_of_memory", message="a:1/y: planted")
    assert it.heard("a:1/y", failed) == [Answered(P, failed)]
    assert it.heard("a:2/z", BatchFailed(batch=7, code="out_of_memory", message="derived")) == []
    assert it.heard("a:2/z", done(1.0, 2.0)) == []
    again = msgspec.structs.replace(SUBMIT, batch=8)
    it.send(P, again)
    outcomes = [it.heard(place, msgspec.structs.replace(done(1.0, 2.0), batch=8)) for place in PLACES[P]]
    assert [len(item) for item in outcomes] == [0, 0, 1]


def test_batches_of_two_runners_do_not_meet() -> None:
    it = replicas()
    it.send(P, SUBMIT)
    it.send(D, msgspec.structs.replace(SUBMIT, batch=8))
    for place in PLACES[D][:1] + PLACES[P][:2]:
        batch = 8 if place in PLACES[D] else 7
        assert it.heard(place, msgspec.structs.replace(done(1.0, 2.0), batch=batch)) == []
    [event] = it.heard("b:1/y", msgspec.structs.replace(done(1.0, 2.0), batch=8))
    assert isinstance(event, Answered) and event.runner == D


def test_a_hand_off_is_cut_into_a_part_for_each_pair_of_regions_with_common_layers() -> None:
    it = replicas()
    expects = it.send(D, ExpectTransfer(binding=binding(), slot=SLOT))
    opens = it.send(P, OpenTransfer(binding=binding(), slot=OTHER))
    wanted = [
        ("a:0/x", 10, "b:0/x", 10, (0, 2)), ("a:1/y", 11, "b:0/x", 10, (2, 3)),
        ("a:1/y", 11, "b:1/y", 11, (3, 5)), ("a:2/z", 12, "b:1/y", 11, (5, 8)),
    ]  # fmt: skip
    parts = [tell.message.binding for tell in expects]  # type: ignore[union-attr]
    assert [(p.source, p.source_epoch, p.destination, p.destination_epoch, p.layers) for p in parts] == wanted
    assert [tell.place for tell in expects] == [part.destination for part in parts]
    assert [tell.place for tell in opens] == [part.source for part in parts]
    assert [tell.message.binding for tell in opens] == parts  # type: ignore[union-attr]
    assert {tell.message.slot for tell in expects} == {SLOT} and {tell.message.slot for tell in opens} == {OTHER}  # type: ignore[union-attr]
    assert len({part.transfer for part in parts}) == 4 and {part.part_of for part in parts} == {40}
    for part in parts:  # everything else ties the part to its request as before
        same = {"source", "source_epoch", "destination", "destination_epoch", "layers", "transfer", "part_of"}
        assert all(getattr(part, name) == getattr(binding(), name) for name in part.__struct_fields__ if name not in same)


def opened(it: Replicas, number: int = 40) -> list[int]:
    expects = it.send(D, ExpectTransfer(binding=binding(number), slot=SLOT))
    it.send(P, OpenTransfer(binding=binding(number), slot=OTHER))
    return [tell.message.binding.transfer for tell in expects]  # type: ignore[union-attr]


def test_a_hand_off_has_arrived_when_all_parts_have_and_is_sent_when_all_are() -> None:
    it = replicas()
    a, b, c, d = opened(it)
    assert it.heard("b:1/y", arrived(c, size=3, start=1.5)) == []
    assert it.heard("b:0/x", arrived(a, size=1, start=0.5)) == []
    assert it.heard("a:0/x", KvSent(transfer=a, sequence=5, size=1)) == []
    assert it.heard("b:0/x", arrived(b, size=2, end=9.0)) == []
    joined = KvArrived(transfer=40, sequence=5, tokens=9, size=10, chunks=8, started=0.5, ended=9.0)
    assert it.heard("b:1/y", arrived(d, size=4)) == [Answered(D, joined)]
    assert it.heard("a:1/y", KvSent(transfer=b, sequence=5, size=2)) == []
    assert it.heard("a:1/y", KvSent(transfer=c, sequence=5, size=3)) == []
    assert it.heard("a:2/z", KvSent(transfer=d, sequence=5, size=4)) == [
        Answered(P, KvSent(transfer=40, sequence=5, size=10))
    ]  # fmt: skip
    assert it.open == 0


@pytest.mark.parametrize("place", ["b:0/x", "a:1/y"])
def test_the_first_failed_part_fails_the_hand_off_and_aborts_the_others_at_both_ends(place) -> None:
    it = replicas()
    a, b, c, d = opened(it)
    it.heard("b:0/x", arrived(a))
    failed = KvFailed(transfer=b, sequence=5, cause="checksum", message="planted")
    *aborts, event = it.heard(place, failed)
    runner = D if place in PLACES[D] else P
    assert event == Answered(runner, msgspec.structs.replace(failed, transfer=40))
    told = {(tell.place, tell.message.transfer) for tell in aborts}  # type: ignore[union-attr]
    assert {("b:1/y", c), ("a:1/y", c), ("b:1/y", d), ("a:2/z", d), ("b:0/x", a), ("a:0/x", a)} <= told
    assert it.open == 0
    for late in (arrived(c), arrived(d), KvFailed(transfer=c, sequence=5, cause="aborted", message=""), failed):
        assert it.heard("b:1/y", late) == []


def test_the_scheduler_giving_up_aborts_all_parts_once_and_late_reports_are_swallowed() -> None:
    it = replicas()
    parts = opened(it)
    keep = opened(it, 41)
    told = it.send(D, AbortTransfer(transfer=40, reason="ended")) + it.send(P, AbortTransfer(transfer=40, reason="ended"))
    assert sorted((tell.place, tell.message.transfer) for tell in told) == sorted(  # type: ignore[union-attr]
        (end, part)
        for part, ends in zip(
            parts, (("a:0/x", "b:0/x"), ("a:1/y", "b:0/x"), ("a:1/y", "b:1/y"), ("a:2/z", "b:1/y")), strict=True
        )
        for end in ends
    )
    assert it.heard("b:0/x", arrived(parts[0])) == []
    outcomes = [it.heard(place, arrived(part)) for place, part in zip(("b:0/x", "b:0/x", "b:1/y", "b:1/y"), keep, strict=True)]
    assert [len(item) for item in outcomes] == [0, 0, 0, 1]


def test_a_lost_process_loses_its_runner_once_and_nobody_else() -> None:
    it = replicas()
    it.send(P, SUBMIT)
    parts = opened(it)
    outcomes = it.lost("a:1/y", "killed")
    assert outcomes[-1] == Lost(P, "a:1/y: killed")
    assert {tell.place for tell in outcomes[:-1]} == {"b:0/x", "b:1/y"}  # type: ignore[union-attr]
    assert it.lost("a:0/x", "its neighbour went") == []
    assert it.heard("a:0/x", done(1.0, 2.0)) == [] and it.heard("a:0/x", BatchFailed(batch=7, code="c", message="m")) == []
    assert it.send(P, SUBMIT) == [] and it.send(P, AbortTransfer(transfer=40, reason="lost")) == []
    assert it.heard("b:0/x", arrived(parts[0])) == [] and it.open == 0
    assert len(it.send(D, SUBMIT)) == 2


def test_a_lost_destination_ends_what_was_on_its_way_to_it_at_the_source() -> None:
    it = replicas()
    parts = opened(it)
    *aborts, event = it.lost("b:1/y", "killed")
    assert event == Lost(D, "b:1/y: killed") and it.open == 0
    assert [(tell.place, tell.message.transfer) for tell in aborts] == list(  # type: ignore[union-attr]
        zip(["a:0/x", "a:1/y", "a:1/y", "a:2/z"], parts, strict=True)
    )


def test_a_runner_of_one_process_is_as_it_was_without_replicas() -> None:
    it = Replicas({"p": [Region("p", 1, 0, 4)], "d": [Region("d", 1, 0, 4)]})
    one = binding(source="p", destination="d")
    [expect] = it.send("d", ExpectTransfer(binding=one, slot=SLOT))
    assert expect.message.binding == msgspec.structs.replace(  # type: ignore[union-attr]
        one, transfer=0, part_of=40, layers=(0, 4), source_epoch=1, destination_epoch=1
    )
    assert it.lost("p", "gone")[-1] == Lost("p", "gone")


@pytest.mark.parametrize("seed", range(30))
def test_parts_hold_every_layer_once_however_both_ends_are_cut_and_in_whatever_order_they_arrive(seed) -> None:
    rng = random.Random(seed)
    depth = rng.randint(1, 12)

    def cut(name: str) -> list[Region]:
        inner = sorted(rng.sample(range(1, depth), rng.randint(0, depth - 1))) if depth > 1 else []
        edges = [0, *inner, depth]
        return [Region(f"{name}:{index}/x", 1, low, high) for index, (low, high) in enumerate(pairwise(edges))]

    it = Replicas({"p": cut("p"), "d": cut("d")})
    one = binding(source="p", destination="d")
    expects = it.send("d", ExpectTransfer(binding=one, slot=SLOT))
    it.send("p", OpenTransfer(binding=one, slot=OTHER))
    parts = [tell.message.binding for tell in expects]  # type: ignore[union-attr]
    assert sorted(layer for part in parts for layer in range(*part.layers)) == list(range(depth))
    assert all(part.layers[0] < part.layers[1] for part in parts)
    events = [(part.destination, arrived(part.transfer, size=part.transfer + 1)) for part in parts]
    events += [(part.source, KvSent(transfer=part.transfer, sequence=5, size=part.transfer + 1)) for part in parts]  # type: ignore[misc]
    rng.shuffle(events)
    outcomes = [outcome for place, message in events for outcome in it.heard(place, message)]
    total = sum(part.transfer + 1 for part in parts)
    assert {type(item.message).__name__: item.message.size for item in outcomes} == {"KvArrived": total, "KvSent": total}  # type: ignore[union-attr]
    assert len(outcomes) == 2 and it.open == 0


def ready(place: str, first: int, count: int, depth: int, **fields: Any) -> Ready:
    layer = KvLayer(key_heads=1, key_dim=1, value_heads=1, value_dim=1)
    stage = StageShape(vocabulary=9, layers=(layer,) * count, first=first, depth=depth)
    default = Ready(
        place=place, epoch=1, framework="x", framework_version="1", stage=stage, precision=Precision(),
        capacities=(16, 64), slots=4,
    )  # fmt: skip
    return msgspec.structs.replace(default, **fields)


def test_a_runner_takes_what_all_of_its_processes_take() -> None:
    pair = [ready("a", 0, 2, 5, batches=(1, 2, 4), epoch=3), ready("b", 2, 3, 5, widths=(1, 8, 32), batches=(2, 4, 8))]
    found = join_facts("a+b", pair, roles=("decode",), chunk=64)
    assert (found.runner, found.epoch, found.capacities, found.slots) == ("a+b", 3, (16, 64), 4)
    assert (found.batches, found.chunk, found.roles) == ((2, 4), 32, ("decode",))
    assert join_facts("a", [ready("a", 0, 5, 0)], roles=("decode",), chunk=64).batches == ()


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ([ready("a", 0, 2, 5), ready("b", 3, 2, 5)], "b owns layers from 3, expected from 2"),
        ([ready("a", 0, 3, 5), ready("b", 2, 3, 5)], "b owns layers from 2, expected from 3"),
        ([ready("a", 0, 2, 5), ready("b", 2, 2, 5)], "ends with layer 3 of 5"),
        ([ready("a", 0, 2, 4, batches=(1,)), ready("b", 2, 2, 4, batches=(2,))], "no batch size in common"),
    ],
)
def test_processes_that_make_no_whole_model_are_refused(processes, words) -> None:
    with pytest.raises(DeviceError, match=words):
        join_facts("a+b", processes, roles=("decode",), chunk=64)
