"""The scheduler on paged runners: ragged batches, pages shared and given back, who gives way, hand-offs to and from slots."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from paged_world import PagedWorld
from scheduler_world import answer

from inlay.scheduler import new_state
from inlay.scheduler.paging import PagePool
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.speculation import SpeculationSetup

PAGE = 8
CONTEXT = 96
BOTH = ("prefill", "decode")


def paged(
    name: str = "a", roles: tuple[str, ...] = BOTH, *, pages: int = 72, slots: int = 6, chunk: int = 20, keeps: bool = True
) -> RunnerFacts:
    return RunnerFacts(
        runner=name, epoch=1, roles=roles, capacities=(32, CONTEXT), slots=slots, chunk=chunk, page=PAGE, pages=pages,
        paged=True, keeps=keeps, rounds=5,
    )  # fmt: skip


def slotted(name: str, roles: tuple[str, ...] = BOTH, *, pages: int = 40) -> RunnerFacts:
    return RunnerFacts(
        runner=name, epoch=1, roles=roles, capacities=(32, CONTEXT), slots=6, chunk=10, page=4, pages=pages, device=name
    )


def world(*runners: RunnerFacts, seed: int = 0, mode: str = "off", **options: float) -> PagedWorld:
    setup = SchedulerSetup(facts=runners or (paged(),), context=CONTEXT, speculation=SpeculationSetup(mode=mode, drafts=3))
    return PagedWorld(new_state(setup), random.Random(seed), **options)


def load(it: PagedWorld, *, seed: int, requests: int = 40, cancelled: float = 0.15, **fields: object) -> None:
    """Prompts that often begin alike, answers of all lengths, some cancelled, some of another tenant or priority."""
    rng = random.Random(seed)
    openings = [tuple(rng.randrange(50) for _ in range(40)) for _ in range(3)]
    asked = []
    for _ in range(requests):
        prompt = rng.choice(openings)[: rng.randrange(41)] + tuple(rng.randrange(50) for _ in range(rng.randint(1, 20)))
        more = {"priority": rng.choice((0, 0, 0, 1)), "tenant": rng.choice(("one", "one", "two"))} | fields
        asked.append(it.request(prompt, max_tokens=rng.randint(1, 50), **more))
        for _ in range(rng.randint(0, 8)):
            it.act()
        if rng.random() < cancelled:
            victim = rng.choice(asked).sequence
            if victim not in it.ended:
                it.cancel(victim)
    it.run()
    for request in asked:
        found, ended = it.tokens.get(request.sequence, []), it.ended[request.sequence]
        expected = answer(request.prompt, min(request.max_tokens, CONTEXT - len(request.prompt)))
        assert found == (expected[: len(found)] if ended.reason == "cancelled" else expected)
    for runner in it.state.runners.values():
        assert not runner.holders and runner.flight is None
        assert runner.paging is None or runner.paging.used == 0
    assert not it.state.sequences and not len(it.state.waiting)


@pytest.mark.parametrize("pages", [72, 30, 13])
@pytest.mark.parametrize("seed", range(8))
def test_every_answer_is_right_and_every_page_comes_back(pages: int, seed: int) -> None:
    it = world(paged(pages=pages), seed=seed)
    load(it, seed=seed)
    assert it.cached
    assert it.preempted or pages == 72
    phases = {batch.phase for batch in it.batches}
    assert phases == {"prefill", "decode", "mixed"}


@pytest.mark.parametrize(
    "runners",
    [(paged("p", ("prefill",)), slotted("d")), (slotted("p"), paged("d", pages=30)), (paged("p"), paged("d", pages=30))],
)
@pytest.mark.parametrize("seed", range(5))
def test_keys_go_from_pages_to_slots_and_back_and_what_fails_is_computed_again(runners, seed: int) -> None:
    it = world(*runners, seed=seed, kv_fault_share=0.2)
    load(it, seed=seed, prefill="p", decode="d")
    assert it.recomputed and it.destinations
    assert it.prompt_rows["p"] > it.prompt_rows["d"] and "split" in {placed.way for placed in it.placed.values()}


@pytest.mark.parametrize("kinds", ["pages pages", "pages slots", "slots pages", "slots slots"])
def test_a_prompt_may_be_computed_in_parts_of_which_more_is_kept_than_is_wanted(kinds: str) -> None:
    table = LatencyTable(fixed=0.001, per_row=0.0, per_token=0.002, per_past=0.0, spread=0.0, overhead=0.0, grade="modelled")
    made = [(paged if kind == "pages" else slotted)(name) for kind, name in zip(kinds.split(), "pd", strict=True)]
    ways: set[str] = set()
    for seed in range(4):
        it = world(*(msgspec.structs.replace(item, table=table) for item in made), seed=seed)
        load(it, seed=seed)
        ways |= {placed.way for placed in it.placed.values()}
    assert ways == {"whole", "split", "part"}


@pytest.mark.parametrize("mode", ["ngram", "free", "synchronous", "enumerated"])
@pytest.mark.parametrize("seed", range(3))
def test_drafts_are_verified_in_pages_and_never_cost_another_its_page(mode: str, seed: int) -> None:
    draft = RunnerFacts(runner="x", epoch=1, roles=("draft",), capacities=(32, CONTEXT), slots=9, chunk=10, device="x")
    it = world(paged(pages=30), draft, seed=seed, mode=mode, agreement=0.9)
    load(it, seed=seed)
    drafted = [row for batch in it.batches for row in batch.rows if row.drafts]
    assert drafted or mode == "ngram"
    assert it.preempted


def test_a_whole_prefix_is_shared_without_a_copy_by_those_who_run_at_once() -> None:
    it = world()
    opening = tuple(range(40))
    it.request((*opening, 41), max_tokens=30)
    while not it.tokens:
        it.act()
    for number in (42, 43, 44):
        it.request((*opening, number), max_tokens=30)
    tables = [item.tables["a"] for item in it.state.sequences.values()]
    assert all(table[:5] == tables[0][:5] for table in tables)
    paging = it.state.runners["a"].paging
    assert paging is not None and [paging.users(page) for page in tables[0][:5]] == [4] * 5
    it.run()
    assert it.prompt_rows["a"] == 41 + 3
    assert paging.used == 0


def test_pages_that_are_shared_let_more_sequences_in() -> None:
    def most(prompts: list[tuple[int, ...]]) -> int:
        it, together = world(paged(pages=16)), 0
        it.request(prompts[0], max_tokens=20)
        while not it.tokens:
            it.act()
        for prompt in prompts[1:]:
            it.request(prompt, max_tokens=20)
        while it.act():
            together = max(together, len(it.state.runners["a"].holders))
        return together

    opening = tuple(range(40))
    assert most([(*opening, number) for number in range(6)]) > most([(number, *opening) for number in range(6)])


def test_prompts_and_decodes_share_a_batch_up_to_the_token_limit() -> None:
    it = world(paged(chunk=20))
    it.request(tuple(range(5)), max_tokens=30)
    it.act()
    for start in (10, 20, 30):
        it.request(tuple(range(start, start + 12)), max_tokens=5)
    it.run()
    sizes = [[len(row.tokens) for row in batch.rows] for batch in it.batches]
    assert sizes[:4] == [[5], [1], [1, 12, 7], [1, 1, 5, 12]]
    assert [batch.phase for batch in it.batches][:5] == ["prefill", "decode", "mixed", "mixed", "decode"]


def test_prompts_get_on_however_many_decode() -> None:
    it = world(paged(chunk=4, slots=6))
    for number in range(5):
        it.request((number,), max_tokens=60)
    while len(it.tokens) < 5:
        it.act()
    late = it.request(tuple(range(20)), max_tokens=1)
    before = len(it.batches)
    while late.sequence not in it.ended:
        it.act()
    assert len(it.batches) - before <= 6
    assert all(len(batch.rows) == 6 for batch in it.batches[before + 1 : -1])


def test_who_is_cancelled_gives_its_pages_back_at_once() -> None:
    it = world()
    paging = it.state.runners["a"].paging
    assert paging is not None
    request = it.request(tuple(range(40)), max_tokens=30)
    for _ in range(4):
        it.act()
    assert paging.used == 6
    it.cancel(request.sequence)
    assert paging.used == 0
    it.run()


def test_the_oldest_is_never_the_one_to_give_way_and_the_rest_goes_on_from_what_is_kept() -> None:
    rows = {}
    for keeps in (True, False):
        it = world(paged(pages=18, keeps=keeps))
        asked = [it.request((index,) * 12, max_tokens=60) for index in range(5)]
        it.run()
        assert it.preempted and asked[0].sequence not in {item.sequence for item in it.preempted}
        assert all(it.tokens[item.sequence] == answer(item.prompt, 60) for item in asked)
        rows[keeps] = sum(len(row.tokens) for batch in it.batches for row in batch.rows)
    assert rows[True] < rows[False]


def test_a_higher_priority_takes_pages_from_as_many_of_lower_ones_as_it_needs_and_from_nobody_in_vain() -> None:
    it = world(paged(pages=12))
    for number in range(3):
        it.request((number,) * 15, max_tokens=40)
    while len(it.tokens) < 3:
        it.act()
    urgent = it.request(tuple(range(60)), max_tokens=5, priority=1)
    assert 1 <= len(it.preempted) < 3 and urgent.sequence in it.placed
    before = len(it.preempted)
    it.request(tuple(range(70)), max_tokens=5, priority=1)
    assert len(it.preempted) == before, "somebody gave way for one that does not fit all the same"
    it.run()
    assert all(item.reason == "length" for item in it.ended.values())  # type: ignore[union-attr]


def test_what_a_lost_runner_held_is_given_back_and_forgotten() -> None:
    it = world(paged("p"), paged("d"))
    for number in range(4):
        it.request((number,) * 20, max_tokens=20, prefill="p", decode="d")
    for _ in range(5):
        it.act()
    it.lose("p")
    paging = it.state.runners["p"].paging
    assert paging is not None and paging.used == 0 and paging.available == paging.count
    it.run()
    it.lose("d")
    assert all(item.reason == "length" for item in it.ended.values())  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", ["leak", "early"])
def test_a_page_that_is_lost_or_given_twice_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PagePool.give

    def wrong(pool: PagePool, table: list[int]) -> None:
        whole(pool, table[:-1] if fault == "leak" else table)
        if fault == "early" and table and pool.users(table[0]):
            whole(pool, table[:1])

    monkeypatch.setattr(PagePool, "give", wrong)
    with pytest.raises(AssertionError, match="the books name other users"):
        load(world(), seed=1)
