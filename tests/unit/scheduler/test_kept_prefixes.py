"""Kept prefixes: what is found again, for whom, and that nothing else is ever found."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scheduler_world import World, answer

from inlay.scheduler import new_state
from inlay.scheduler.keeping import enter, keep
from inlay.scheduler.prefix import PageIndex, extend_chain
from inlay.scheduler.sequence import PREFILL, new_sequence
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import RunnerFacts, SchedulerSetup, SequenceRequest

PAGE = 8
GREEDY = Sampling(temperature=0)


def facts(*, pages: int, slots: int = 4, name: str = "a", roles: tuple[str, ...] = ("prefill", "decode")) -> RunnerFacts:
    return RunnerFacts(runner=name, epoch=1, roles=roles, capacities=(32, 96), slots=slots, chunk=10, page=PAGE, pages=pages)


def world(*, pages: int, seed: int = 0, **options: int) -> World:
    return World(new_state(SchedulerSetup(facts=(facts(pages=pages, **options),), context=96)), random.Random(seed))


def test_a_prompt_that_was_seen_is_computed_but_for_its_last_page() -> None:
    it = world(pages=20)
    tokens = tuple(range(40))
    for _ in range(2):
        request = it.request(tokens, max_tokens=6)
        it.run()
        assert it.tokens[request.sequence] == answer(tokens, 6)
    assert it.placed[1].cached == 0
    assert it.placed[2].cached == 32  # 5 pages are known; at least one token must be computed
    assert it.prompt_rows["a"] == 40 + 8


def test_the_answer_is_part_of_the_next_turn() -> None:
    it = world(pages=20)
    first = it.request(tuple(range(20)), max_tokens=20)
    it.run()
    turn = (*range(20), *it.tokens[first.sequence], 1, 2, 3)
    second = it.request(turn, max_tokens=5)
    it.run()
    assert it.placed[second.sequence].cached == 32  # of 39 rows computed four pages are full
    assert it.tokens[second.sequence] == answer(turn, 5)


def test_tenants_never_share_a_prefix() -> None:
    it = world(pages=20)
    tokens = tuple(range(40))
    for tenant in ("one", "two", "one"):
        request = it.request(tokens, max_tokens=3, tenant=tenant)
        it.run()
        assert it.placed[request.sequence].cached == (0 if request.sequence < 3 else 32)


def test_a_prompt_that_is_wanted_whole_is_computed_whole() -> None:
    it = world(pages=20)
    tokens = tuple(range(40))
    for whole, cached in ((True, 0), (True, 0), (False, 32)):
        request = it.request(tokens, max_tokens=6, whole=whole)
        it.run()
        assert it.placed[request.sequence].cached == cached
        assert it.tokens[request.sequence] == answer(tokens, 6)


@pytest.mark.parametrize("pages", [1, 3, 7, 40])
@pytest.mark.parametrize("seed", range(6))
def test_with_any_number_of_pages_every_answer_is_right(pages, seed) -> None:
    rng = random.Random(seed)
    it = world(pages=pages, seed=seed)
    stems = [tuple(rng.randrange(50) for _ in range(rng.randint(5, 60))) for _ in range(4)]
    requests = []
    for _ in range(60):
        stem = rng.choice(stems)
        tokens = (*stem[: rng.randint(1, len(stem))], *(rng.randrange(50) for _ in range(rng.randint(0, 9))))
        requests.append(it.request(tokens, max_tokens=rng.randint(1, 20), tenant=rng.choice("xy")))
        for _ in range(rng.randint(0, 10)):
            it.act()
        if rng.random() < 0.1:
            victim = rng.choice(requests).sequence
            if victim not in it.ended:
                it.cancel(victim)
    it.run()
    for request in requests:
        found = it.tokens.get(request.sequence, [])
        assert found == answer(request.prompt, min(request.max_tokens, 96 - len(request.prompt)))[: len(found)]
    assert it.cached > 0 or pages == 1
    assert it.state.runners["a"].pages.used <= pages


def test_a_chain_is_given_up_from_its_end() -> None:
    index = PageIndex(4)
    chain: list[bytes] = []
    extend_chain(chain, range(32), page=8, salt="")
    other: list[bytes] = []
    extend_chain(other, range(100, 116), page=8, salt="")
    assert index.keep(chain) == (0, (0, 1, 2, 3))
    assert len(index.keep(other)[1]) == 2
    assert index.match(chain) == (0, 1)
    assert index.match(other) == (3, 2)


def test_a_chain_longer_than_the_store_keeps_its_beginning() -> None:
    index = PageIndex(3)
    chain: list[bytes] = []
    extend_chain(chain, range(80), page=8, salt="")
    first, pages = index.keep(chain)
    assert (first, len(pages)) == (0, 3)
    assert index.length(chain) == 3
    assert index.keep(chain) == (3, ())


@pytest.mark.parametrize("paged", [False, True])
def test_a_part_of_a_prompt_takes_no_more_kept_rows_than_its_place_is_for(paged) -> None:
    made = msgspec.structs.replace(facts(pages=48), paged=paged)
    state = new_state(SchedulerSetup(facts=(made,), context=96))
    runner = state.runners["a"]
    kept, later = (
        new_sequence(
            SequenceRequest(sequence=i, request="", prompt=tuple(range(40)), max_tokens=1, sampling=GREEDY, entropy=b"")
        )
        for i in (1, 2)
    )
    enter(state, kept, runner, 40)
    kept.prefill, kept.phase, kept.computed = "a", PREFILL, 40
    keep(state, kept, runner)
    commands, known = enter(state, later, runner, 12)
    assert known == PAGE
    if paged:
        assert len(later.tables["a"]) == 2
    else:
        assert [len(command.message.pages) for command in commands] == [1]
