"""Fewer slots than sequences could need: somebody gives way, nothing is lost, the oldest always gets on."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scheduler_world import World, answer

from inlay.scheduler import new_state
from inlay.specs.schedule import RunnerFacts, SchedulerSetup


def facts(name: str = "a", roles: tuple[str, ...] = ("prefill", "decode"), *, pages: int = 0, rooms=(4, 2, 1)) -> RunnerFacts:
    return RunnerFacts(
        runner=name, epoch=1, roles=roles, capacities=(16, 48, 96), slots=6, chunk=7, rooms=rooms, page=8, pages=pages, rounds=5
    )


def world(*runners: RunnerFacts, seed: int = 0) -> World:
    return World(new_state(SchedulerSetup(facts=runners, context=96)), random.Random(seed))


@pytest.mark.parametrize("pages", [0, 5, 60])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_every_answer_is_right_however_often_somebody_gives_way(pages, split, seed) -> None:
    rng = random.Random(seed)
    runners = (facts("p", ("prefill",)), facts("d", ("decode",), pages=pages)) if split else (facts(pages=pages),)
    # what must be computed again is computed where it decodes
    it = world(*runners, seed=seed)
    before = {name: runner.pool.free_count() for name, runner in it.state.runners.items()}
    requests = []
    for _ in range(30):
        tokens = tuple(rng.randrange(50) for _ in range(rng.randint(1, 30)))
        requests.append(it.request(tokens, max_tokens=rng.randint(5, 60)))
        for _ in range(rng.randint(0, 10)):
            it.act()
        if rng.random() < 0.1:
            victim = rng.choice(requests).sequence
            if victim not in it.ended:
                it.cancel(victim)
    it.run()
    assert it.preempted
    for request in requests:
        found, ended = it.tokens.get(request.sequence, []), it.ended[request.sequence]
        expected = answer(request.prompt, min(request.max_tokens, 96 - len(request.prompt)))
        assert found == (expected[: len(found)] if ended.reason == "cancelled" else expected)
    assert {name: runner.pool.free_count() for name, runner in it.state.runners.items()} == before
    assert not it.state.sequences and not len(it.state.waiting)


def test_the_oldest_is_never_the_one_to_give_way() -> None:
    it = world(facts())
    oldest = it.request(tuple(range(10)), max_tokens=80)
    for index in range(5):
        it.request((index,), max_tokens=80)
    it.run()
    assert it.preempted
    assert oldest.sequence not in {command.sequence for command in it.preempted}
    assert it.tokens[oldest.sequence] == answer(oldest.prompt, 80)


def test_what_was_computed_is_kept_for_the_one_that_gave_way() -> None:
    kept, forgotten = world(facts(pages=60)), world(facts(pages=0))
    for it in (kept, forgotten):
        for index in range(5):
            it.request((index,) * 12, max_tokens=60)
        it.run()
        assert it.preempted
    rows = [sum(len(row.tokens) for batch in it.batches for row in batch.rows) for it in (kept, forgotten)]
    assert rows[0] < rows[1]


def test_a_higher_priority_takes_the_slot_of_a_lower_one() -> None:
    it = world(facts(rooms=(1, 1, 1)))
    low = [it.request((index,), max_tokens=70) for index in range(3)]
    for _ in range(20):
        it.act()
    high = it.request((9, 9, 9), max_tokens=5, priority=1)
    while high.sequence not in it.ended:
        assert it.act()
    assert not any(request.sequence in it.ended for request in low)
    it.run()
    for request in [*low, high]:
        assert it.tokens[request.sequence] == answer(request.prompt, request.max_tokens)


def test_rows_that_have_not_arrived_are_not_kept() -> None:
    it = world(facts("p", ("prefill",)), facts("d", ("decode",), pages=60, rooms=(1, 1, 1)))
    filler = it.request(tuple(range(30, 50)), max_tokens=2)
    it.run()  # its rows are what a slot of the decode runner still holds
    low = it.request(tuple(range(20)), max_tokens=5)
    it.exported.clear()
    while it.state.sequences[low.sequence].phase != "handoff":
        it.exported.clear()  # the pages do not leave the source
        assert it.act()
    others = [it.request((index,), max_tokens=3, priority=1) for index in range(3)]
    assert low.sequence in {command.sequence for command in it.preempted}
    it.run()
    for request in [filler, low, *others]:
        assert it.tokens[request.sequence] == answer(request.prompt, request.max_tokens)


def test_tenants_share_whatever_each_of_them_asks() -> None:
    it = world(RunnerFacts(runner="a", epoch=1, roles=("prefill", "decode"), capacities=(96,), slots=2, chunk=16))
    greedy = [it.request((1, 2, 3), max_tokens=10, tenant="greedy") for _ in range(40)]
    modest = [it.request((4, 5, 6), max_tokens=10, tenant="modest") for _ in range(5)]
    while not all(request.sequence in it.ended for request in modest):
        assert it.act()
    assert sum(request.sequence in it.ended for request in greedy) <= 12
    it.run()
    late = it.request((7,), tenant="late")  # a share that was not used is not saved up
    it.run()
    assert late.sequence in it.ended


def test_a_tenant_that_comes_late_does_not_keep_the_others_out() -> None:
    it = world(RunnerFacts(runner="a", epoch=1, roles=("prefill", "decode"), capacities=(96,), slots=1, chunk=16))
    for _ in range(30):
        it.request((1, 2, 3), max_tokens=10, tenant="early")
    while len(it.ended) < 20:
        assert it.act()
    late = [it.request((4, 5, 6), max_tokens=10, tenant="late") for _ in range(20)]
    while len(it.ended) < 30:
        assert it.act()
    assert 3 <= sum(request.sequence in it.ended for request in late) <= 7


def test_nobody_gives_way_for_one_whose_prompt_finds_no_room() -> None:
    p = RunnerFacts(runner="p", epoch=1, roles=("prefill",), capacities=(96,), slots=1, chunk=4)
    d = RunnerFacts(runner="d", epoch=1, roles=("decode",), capacities=(96,), slots=1, chunk=4)
    it = world(p, d)
    first = it.request((1, 2, 3), max_tokens=30)
    while len(it.tokens.get(first.sequence, [])) < 3:
        it.act()
    second = it.request(tuple(range(40)), max_tokens=3)  # waits: where it would decode there is no room
    it.state.runners["p"].holders[99] = it.state.sequences[first.sequence]  # the prefill runner is full
    urgent = it.request((7, 8), max_tokens=3, priority=1)
    assert not it.preempted
    del it.state.runners["p"].holders[99]
    it.tick(0.0)
    it.run()
    assert all(it.tokens[item.sequence] == answer(item.prompt, item.max_tokens) for item in (first, second, urgent))
