"""Speculation as bookkeeping: every mode, several sequences, cancellations and preemptions, late and wrong drafts."""

from __future__ import annotations

import random
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scheduler_world import World, answer

from inlay.scheduler import new_state
from inlay.scheduler.ngram import Memory
from inlay.specs.device import BatchFailed, Draft, Submit
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.speculation import ENUMERATED, FREE, NGRAM, SYNCHRONOUS, SpeculationSetup

MODES = (SYNCHRONOUS, FREE, ENUMERATED)


def facts(name: str, *roles: str, slots: int = 4, **options: object) -> RunnerFacts:
    values = {"capacities": (24, 48, 96), "chunk": 9, **options}
    return RunnerFacts(runner=name, epoch=1, roles=roles, slots=slots, rounds=5, **values)  # type: ignore[arg-type]


def world(
    *runners: RunnerFacts, mode: str = FREE, seed: int = 0, agreement: float = 0.7, drafts: int = 3, breadth: int = 3
) -> World:
    setup = SchedulerSetup(
        facts=runners or (facts("t", "prefill", "decode"), facts("d", "draft", slots=40)),
        context=96,
        speculation=SpeculationSetup(mode=mode, drafts=drafts, breadth=breadth),
    )
    it = World(new_state(setup), random.Random(seed))
    it.agreement = agreement
    return it


def prompt(rng: random.Random, longest: int = 30) -> tuple[int, ...]:
    return tuple(rng.randrange(50) for _ in range(rng.randint(1, longest)))


def free_counts(it: World) -> dict[str, int]:
    return {name: runner.pool.free_count() for name, runner in it.state.runners.items() if runner.alive}


def steps(it: World) -> int:
    return sum(batch.phase == "decode" for batch in it.batches)


@pytest.mark.parametrize("mode", (*MODES, NGRAM))
@pytest.mark.parametrize("agreement", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_drafted_the_text_is_the_targets(mode, agreement, seed) -> None:
    rng = random.Random(seed)
    runners = (
        facts("t", "prefill", "decode", rooms=(4, 2, 1), page=8, pages=20),
        facts("u", "prefill", "decode", batches=(1, 2, 4)),
        facts("d", "draft", slots=8, rooms=(8, 6, 6)),
        facts("e", "draft", slots=8, rooms=(4, 8, 2), batches=(1, 4)),
    )
    it = world(*runners, mode=mode, seed=seed, agreement=agreement)
    before = free_counts(it)
    requests, cancelled = [], set()
    for _ in range(24):
        requests.append(it.request(prompt(rng), max_tokens=rng.randint(1, 50)))
        for _ in range(rng.randint(0, 14)):
            it.act()
        if rng.random() < 0.2:
            victim = rng.choice(requests).sequence
            if victim not in it.ended:
                it.cancel(victim)
                cancelled.add(victim)
    it.run()
    for request in requests:
        found = it.tokens.get(request.sequence, [])
        expected = answer(request.prompt, min(request.max_tokens, 96 - len(request.prompt)))
        assert found == (expected[: len(found)] if request.sequence in cancelled else expected)
    assert free_counts(it) == before
    assert not it.state.sequences and not any(runner.drafting for runner in it.state.runners.values())
    assert (it.drafted > 0) == (mode != NGRAM)
    assert it.preempted or seed != 0


@pytest.mark.parametrize("mode", MODES)
def test_a_perfect_draft_makes_every_verify_step_give_all_it_can(mode) -> None:
    it = world(mode=mode, agreement=1.0)
    request = it.request((1, 2, 3), max_tokens=81)
    it.run()
    assert it.tokens[request.sequence] == answer(request.prompt, 81)
    rows = [row for batch in it.batches if batch.phase == "decode" for row in batch.rows]
    assert len(rows) <= 22  # 80 tokens after the first, four a step, and the first may have come before its draft
    assert sum(row.drafts == 3 for row in rows) >= 18


@pytest.mark.parametrize("mode", [FREE, ENUMERATED])
def test_what_runs_ahead_of_the_verdict_is_used_when_it_was_right(mode) -> None:
    it = world(mode=mode, agreement=1.0)
    request = it.request((1, 2, 3), max_tokens=60)
    waited = 0
    while request.sequence not in it.ended:
        at = next((i for i, (to, _) in enumerate(it.pending) if to == "d"), 0)  # the draft runner is the faster one
        it.obey(*it.pending.pop(at))
        target, draft = it.state.runners["t"], it.state.runners["d"]
        if target.flight is None and draft.flight is not None and any(target.decoding.values()):
            waited += 1
    assert waited <= 2  # after the first guess none is ever waited for


def test_a_refuted_draft_finds_its_continuation_among_the_enumerated_outcomes() -> None:
    counts = {}
    for mode in MODES:
        it = world(mode=mode, agreement=0.6, breadth=6, seed=3)
        request = it.request((1, 2, 3), max_tokens=90)
        with_drafts = 0
        first = True
        while it.act():
            for message in [m for _, m in it.pending if isinstance(m, Submit) and m.phase == "decode"]:
                with_drafts += first and message.rows[0].drafts > 0
        assert it.tokens[request.sequence] == answer(request.prompt, 90)
        counts[mode] = (steps(it), it.drafted)
    # the second best is always the target's: enumerated never waits, and needs no more verify steps than waiting does
    assert counts[ENUMERATED][0] <= counts[FREE][0] + 2


def test_a_late_draft_is_not_waited_for_beyond_patience() -> None:
    it = world(mode=SYNCHRONOUS)
    request = it.request((1, 2, 3), max_tokens=12)
    lost: list[Draft] = []
    while True:
        kept = []
        for runner, message in it.pending:
            if isinstance(message, Draft):
                lost.append(message)  # it never answers
            else:
                kept.append((runner, message))
        it.pending = kept
        if not it.act():
            break
    assert lost
    assert it.tokens[request.sequence] == answer(request.prompt, 12)
    assert it.now < 1.5, "one patience is lost, not one for each token"


def test_a_lost_draft_runner_costs_no_request() -> None:
    for seed in range(6):
        rng = random.Random(seed)
        it = world(mode=ENUMERATED, seed=seed)
        requests = [it.request(prompt(rng), max_tokens=30) for _ in range(5)]
        for _ in range(rng.randint(0, 60)):
            it.act()
        it.lose("d")
        it.run()
        for request in requests:
            assert it.tokens[request.sequence] == answer(request.prompt, 30)
        assert not it.state.sequences


def test_a_moot_draft_is_interrupted() -> None:
    it = world(mode=FREE, agreement=0.5)
    it.request((1, 2, 3), max_tokens=90)
    it.run()
    assert it.interrupted


def test_one_draft_runner_serves_several_targets_at_once() -> None:
    it = world(
        facts("t", "prefill", "decode"), facts("u", "prefill", "decode"), facts("d", "draft", slots=16), mode=SYNCHRONOUS
    )
    requests = [it.request((n,), max_tokens=20, decode="tu"[n % 2]) for n in range(6)]
    shared = 0
    while it.act():
        for _, message in it.pending:
            if isinstance(message, Draft):
                shared = max(shared, len({row.sequence for row in message.rows}))
    assert shared >= 2
    for request in requests:
        assert it.tokens[request.sequence] == answer(request.prompt, 20)


def test_where_the_draft_runner_has_no_slot_a_sequence_goes_without() -> None:
    it = world(facts("t", "prefill", "decode"), facts("d", "draft", slots=1, rooms=(1, 1, 1)), mode=FREE)
    requests = [it.request((n, n), max_tokens=60) for n in range(4)]
    it.run()
    for request in requests:
        assert it.tokens[request.sequence] == answer(request.prompt, 60)


def test_a_request_may_switch_it_off_or_choose() -> None:
    it = world(mode=FREE)
    it.request((1, 2, 3), max_tokens=20, speculation="off")
    it.run()
    assert it.drafted == 0 and not any(row.drafts for batch in it.batches for row in batch.rows)
    it.request((1, 2, 3), max_tokens=20, speculation=SYNCHRONOUS)
    it.run()
    assert it.drafted > 0


def test_n_grams_repeat_what_followed_before() -> None:
    memory = Memory()
    text = [1, 2, 3, 4, 5, 9, 2, 3]
    assert memory.guess(text, 3) == [4, 5, 9]
    assert memory.guess([*text, 4], 2) == [5, 9]
    assert memory.guess([7, 8], 2) == []


def test_the_drafts_of_a_text_that_repeats_itself_need_no_model() -> None:
    it = world(facts("t", "prefill", "decode"), mode=NGRAM)
    rng = random.Random(0)
    texts = [tuple(rng.randrange(6) for _ in range(30)) for _ in range(50)]
    text = next(item for item in texts if (item[-1], answer(item, 1)[0]) in pairwise(item))
    it.request(text, max_tokens=4)
    it.run()
    rows = [row for batch in it.batches if batch.phase == "decode" for row in batch.rows]
    assert rows[0].drafts > 0


def test_a_draft_runner_that_fails_is_done_without() -> None:
    it = world(mode=SYNCHRONOUS)
    it.draft = lambda runner, batch: it.answer(runner, BatchFailed(batch=batch.batch, code="planted", message="planted"))  # type: ignore[method-assign,assignment]
    before = free_counts(it)
    requests = [it.request((n, 1, 2), max_tokens=30) for n in range(3)]
    it.run()
    for request in requests:
        assert it.tokens[request.sequence] == answer(request.prompt, 30)
    assert it.now < 2 and free_counts(it) == before and not it.state.runners["d"].drafting


def test_a_draft_runner_far_behind_catches_up_and_then_drafts() -> None:
    it = world(
        facts("t", "prefill", "decode", page=8, pages=20, chunk=60), facts("d", "draft", slots=8, chunk=5), mode=SYNCHRONOUS
    )
    it.agreement = 1.0
    request = it.request(tuple(range(50)), max_tokens=40)
    it.run()
    assert it.tokens[request.sequence] == answer(request.prompt, 40)
    rows = [row for batch in it.batches if batch.phase == "decode" for row in batch.rows]
    assert sum(row.drafts for row in rows) > 20


def test_a_sequence_says_how_it_begins_and_how_it_went_on() -> None:
    it = world(mode=FREE, agreement=1.0)
    request = it.request((1, 2, 3), max_tokens=20)
    it.run()
    drafting, drafted = it.placed[request.sequence].drafting, it.ended[request.sequence].drafted
    assert drafting is not None and drafting.asked and (drafting.mode, drafting.runner, drafting.drafts) == (FREE, "d", 3)
    assert drafted is not None and sum(drafted.modes.values()) == 19  # the first token is the prompt's
    assert set(drafted.modes) == {FREE} and 0 < drafted.accepted <= drafted.drafts
    plain = it.request((4, 5, 6), max_tokens=5, speculation="off")
    it.run()
    assert it.placed[plain.sequence].drafting.cause == "asked" and it.ended[plain.sequence].drafted is None


def test_tokens_by_mode_are_those_of_the_answer_where_drafts_go_beyond_its_end() -> None:
    prompt, wanted = (1, 2, 3), answer((1, 2, 3), 40)
    end = next(at for at in range(6, 40) if wanted[at] not in wanted[:at])
    it = world(mode=FREE, agreement=1.0)
    request = it.request(prompt, max_tokens=40, stop_tokens=(wanted[end],))
    it.run()
    assert it.tokens[request.sequence] == wanted[: end + 1]
    assert sum(it.ended[request.sequence].drafted.modes.values()) == end
