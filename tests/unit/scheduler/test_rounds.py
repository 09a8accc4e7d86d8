"""Decode steps in a row: more than one without being told, never one too many, and never a wrong token."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scheduler_world import World, answer

from inlay.scheduler import new_state
from inlay.specs.device import BatchDone, Row, RowResult, Submit
from inlay.specs.rounds import following
from inlay.specs.sampling import SampledToken, Sampling
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.speculation import OFF, SpeculationSetup

PROMPT = (1, 2, 3)


def facts(name: str = "a", *roles: str, rounds: int = 8) -> RunnerFacts:
    return RunnerFacts(
        runner=name,
        epoch=1,
        roles=roles or ("prefill", "decode"),
        capacities=(16, 48, 96),
        slots=4,
        chunk=8,
        page=8,
        pages=20,
        rounds=rounds,
    )


def world(*runners: RunnerFacts, seed: int = 0) -> World:
    setup = SchedulerSetup(facts=runners or (facts(),), context=96, speculation=SpeculationSetup(mode=OFF))
    return World(new_state(setup), random.Random(seed))


def told(it: World) -> list[int]:
    """How many rounds each decode batch was told to run that the scheduler sent itself."""
    seen: dict[int, int] = {}
    for batch in it.batches:
        if batch.phase == "decode":
            seen.setdefault(batch.batch, batch.rounds)
    return list(seen.values())


def test_a_lone_sequence_is_decoded_in_rounds_as_long_as_its_slot_and_its_length_allow() -> None:
    it = world()
    request = it.request(PROMPT, max_tokens=40)
    it.run()
    assert it.tokens[request.sequence] == answer(PROMPT, 40)
    # 3 + 40 rows: 13 steps fill the slot of 16, the rest lies in the one of 48; the prompt gave the first token.
    assert told(it) == [8, 5, 8, 8, 8, 2] and it.rounds == 39 - len(told(it))


def test_a_runner_that_cannot_is_told_every_step() -> None:
    it = world(facts(rounds=1))
    it.request(PROMPT, max_tokens=20)
    it.run()
    assert set(told(it)) == {1} and it.rounds == 0


def test_an_end_token_ends_the_rounds_on_the_device() -> None:
    it = world()
    wanted = answer(PROMPT, 30)
    ends = (wanted[4],)
    request = it.request(PROMPT, max_tokens=30, stop_tokens=ends)
    it.run()
    assert it.tokens[request.sequence] == wanted[: wanted.index(ends[0]) + 1]
    assert len([batch for batch in it.batches if batch.phase == "decode"]) == wanted.index(ends[0]), "no step too many"


def test_a_new_prompt_waits_for_one_step_and_no_more() -> None:
    it = world()
    it.request(PROMPT, max_tokens=40)
    while not it.rounds:
        it.act()
    it.request((4, 5, 6), max_tokens=5)
    before = len(it.batches)
    it.act()
    it.act()
    assert [batch.phase for batch in it.batches[before:]] == ["decode", "prefill"]
    it.run()
    assert it.tokens[2] == answer((4, 5, 6), 5) and it.tokens[1] == answer(PROMPT, 40)


@pytest.mark.parametrize("fields", [{"guided": True}, {"sampling": Sampling(temperature=0, presence=0.1)}])
def test_what_must_be_seen_before_the_next_token_is_decoded_step_by_step(fields) -> None:
    it = world()
    it.request(PROMPT, max_tokens=20, **fields)
    it.run()
    assert set(told(it)) == {1}


def test_no_rounds_while_a_hand_off_is_coming() -> None:
    it = world(facts("p", "prefill"), facts("d", "decode"), seed=3)
    it.request(PROMPT, max_tokens=60)
    while not it.rounds:
        it.act()
    for number in range(3):
        it.request(tuple(range(4, 40 + number)), max_tokens=10)
    fresh = 0
    while it.state.handoffs:
        begun, open_before = it.state.next_batch, set(it.state.handoffs)
        it.act()
        flight = it.state.runners["d"].flight
        if flight is not None and flight.batch >= begun and open_before <= set(it.state.handoffs):
            assert flight.rounds == 1
            fresh += 1
    assert fresh > 3
    it.run()
    assert all(it.tokens[2 + number] == answer(tuple(range(4, 40 + number)), 10) for number in range(3))


@pytest.mark.parametrize("seed", range(12))
def test_cancelled_and_late_ones_disturb_nobody(seed) -> None:
    it, rng = world(seed=seed), random.Random(seed)
    requests = []
    for _ in range(25):
        requests.append(it.request(tuple(rng.choices(range(50), k=rng.randint(1, 50))), max_tokens=rng.randint(1, 40)))
        for _ in range(rng.randint(0, 12)):
            it.act()
        if rng.random() < 0.3:
            it.cancel(rng.choice(requests).sequence)
    it.run()
    assert it.rounds > 5
    for request in requests:
        found = it.tokens.get(request.sequence, [])
        assert found == answer(request.prompt, request.max_tokens)[: len(found)]
        assert it.ended[request.sequence].reason in ("cancelled", "length")
        assert it.ended[request.sequence].reason == "cancelled" or len(found) == min(
            request.max_tokens, 96 - len(request.prompt)
        )


def test_the_next_round_feeds_what_was_sampled() -> None:
    rows = tuple(Row(sequence=i, slot=i, tokens=(5,), past_length=10 + i, sample=Sampling(), ends=(9,)) for i in range(2))
    batch = Submit(batch=3, phase="decode", capacity=16, first=0, count=2, width=1, rows=rows, rounds=3)

    def done(*tokens: int) -> BatchDone:
        results = tuple(RowResult(sequence=i, sampled=(SampledToken(token=token),)) for i, token in enumerate(tokens))
        return BatchDone(batch=3, results=results, started=0.0, ended=0.0, prompt_tokens=0)

    second = following(batch, done(6, 7))
    assert second is not None and second.rounds == 2
    assert [(row.tokens, row.past_length) for row in second.rows] == [((6,), 11), ((7,), 12)]
    third = following(second, done(1, 2))
    assert third is not None and following(third, done(1, 2)) is None
    assert following(batch, done(6, 9)) is None
