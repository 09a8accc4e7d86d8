"""The scheduler over a world of lists: tokens, slots, hand-offs and faults."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scheduler_world import World, answer

from inlay.scheduler import new_state
from inlay.scheduler.prefix import name_of
from inlay.specs.device import Move, Submit
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import Fail, RunnerFacts, SchedulerSetup

CAPACITIES = (16, 48, 96)


def facts(
    name: str, roles: tuple[str, ...], *, slots: int = 4, chunk: int = 7, batches: tuple[int, ...] = (), rounds: int = 5
) -> RunnerFacts:
    return RunnerFacts(
        runner=name, epoch=1, roles=roles, capacities=CAPACITIES, slots=slots, chunk=chunk, batches=batches, rounds=rounds
    )


def alone(**options: object) -> tuple[RunnerFacts, ...]:
    return (facts("a", ("prefill", "decode"), **options),)


def split(**options: object) -> tuple[RunnerFacts, ...]:
    return (facts("p", ("prefill",), **options), facts("d", ("decode",), **options))


def world(runners: tuple[RunnerFacts, ...], *, seed: int = 0, fault_share: float = 0.0, **options: object) -> World:
    return World(
        new_state(SchedulerSetup(facts=runners, context=96, **options)), random.Random(seed), kv_fault_share=fault_share
    )


def prompt(rng: random.Random, longest: int = 60) -> tuple[int, ...]:
    return tuple(rng.randrange(50) for _ in range(rng.randint(1, longest)))


def pool_counts(it: World) -> dict[str, int]:
    return {name: runner.pool.free_count() for name, runner in it.state.runners.items()}


def assert_restored(it: World, before: dict[str, int]) -> None:
    assert not it.state.sequences and not it.state.waiting and not it.state.handoffs
    alive = {name for name, runner in it.state.runners.items() if runner.alive}
    assert {k: v for k, v in pool_counts(it).items() if k in alive} == {k: v for k, v in before.items() if k in alive}
    for name in alive:
        runner = it.state.runners[name]
        assert not runner.holders and not runner.prefilling and not any(runner.decoding.values())


@pytest.mark.parametrize("batches", [(), (1, 2, 4), (1, 2)])
@pytest.mark.parametrize("make", [alone, split])
@pytest.mark.parametrize("seed", range(8))
def test_every_sequence_gets_the_tokens_of_its_own_prompt(make, batches, seed) -> None:
    rng = random.Random(seed)
    it = world(make(batches=batches), seed=seed)
    before = pool_counts(it)
    requests = []
    for _ in range(25):
        requests.append(it.request(prompt(rng), max_tokens=rng.randint(1, 40)))
        for _ in range(rng.randint(0, 12)):
            it.act()
    it.run()
    for request in requests:
        count = min(request.max_tokens, 96 - len(request.prompt))
        assert it.tokens[request.sequence] == answer(request.prompt, count)
        assert it.ended[request.sequence].reason == "length"
    assert_restored(it, before)


@pytest.mark.parametrize("seed", range(8))
def test_failed_hand_offs_are_recomputed_and_nobody_notices(seed) -> None:
    rng = random.Random(seed)
    it = world(split(), seed=seed, fault_share=0.5)
    before = pool_counts(it)
    requests = [it.request(prompt(rng), max_tokens=10) for _ in range(20)]
    it.run()
    assert it.recomputed
    assert it.prompt_rows["d"] == sum(len(requests[c.sequence - 1].prompt) for c in it.recomputed)
    for request in requests:
        assert it.tokens[request.sequence] == answer(request.prompt, 10)
    assert_restored(it, before)


def test_the_decode_runner_never_sees_prompt_tokens() -> None:
    rng = random.Random(3)
    it = world(split())
    for _ in range(20):
        it.request(prompt(rng), max_tokens=10)
    it.run()
    assert it.prompt_rows["d"] == 0 and it.prompt_rows["p"] > 0


@pytest.mark.parametrize("make", [alone, split])
@pytest.mark.parametrize("seed", range(6))
def test_cancelled_sequences_free_everything_at_once_and_disturb_nobody(make, seed) -> None:
    rng = random.Random(seed)
    it = world(make(), seed=seed, fault_share=0.2)
    before = pool_counts(it)
    requests, cancelled = [], set()
    for _ in range(40):
        requests.append(it.request(prompt(rng), max_tokens=rng.randint(1, 30)))
        for _ in range(rng.randint(0, 8)):
            it.act()
        victim = rng.choice(requests).sequence
        if rng.random() < 0.5 and victim not in it.ended:
            it.cancel(victim)
            cancelled.add(victim)
            assert (it.ended[victim].sequence, it.ended[victim].reason) == (victim, "cancelled")
    it.run()
    for request in requests:
        expected = answer(request.prompt, min(request.max_tokens, 96 - len(request.prompt)))
        found = it.tokens.get(request.sequence, [])
        assert found == (expected[: len(found)] if request.sequence in cancelled else expected)
    assert_restored(it, before)


@pytest.mark.parametrize("seed", range(6))
def test_a_lost_prefill_runner_costs_no_request_that_was_admitted(seed) -> None:
    rng = random.Random(seed)
    it = world(split(), seed=seed)
    requests = [it.request(prompt(rng), max_tokens=12) for _ in range(4)]
    for _ in range(rng.randint(0, 60)):
        it.act()
    it.lose("p")
    it.run()
    for request in requests:
        assert it.tokens[request.sequence] == answer(request.prompt, 12)
    late = it.request((1, 2, 3))
    assert isinstance(it.ended[late.sequence], Fail) and it.ended[late.sequence].code == "no_runner"


def test_a_lost_decode_runner_ends_its_sequences_with_an_error_and_the_queue_with_a_refusal() -> None:
    it = world(split(slots=2))
    requests = [it.request((1, 2, 3), max_tokens=30) for _ in range(5)]
    for _ in range(30):
        it.act()
    it.lose("d")
    it.run()
    codes = {it.ended[request.sequence].code for request in requests}
    assert codes == {"device_lost", "no_runner"}


def test_an_expired_lease_is_recomputed() -> None:
    it = world(split())
    request = it.request((1, 2, 3), max_tokens=5)
    it.exported.clear()
    while it.state.sequences[request.sequence].phase != "handoff":
        it.exported.clear()  # the pages never leave the source
        assert it.act()
    it.tick(5)
    assert not it.recomputed
    it.tick(6)
    assert [command.cause for command in it.recomputed] == ["lease"]
    it.run()
    assert it.tokens[request.sequence] == answer((1, 2, 3), 5)


def test_end_tokens_stop_a_sequence_but_not_before_min_tokens() -> None:
    it = world(alone())
    words = answer((5, 6), 12)
    stop = words[4]
    first = it.request((5, 6), stop_tokens=(stop,))
    it.run()
    assert it.tokens[first.sequence] == words[: words.index(stop) + 1]
    assert it.ended[first.sequence].reason == "stop"
    second = it.request((5, 6), stop_tokens=(stop,), min_tokens=8, max_tokens=8)
    it.run()
    rows = [row for batch in it.batches for row in batch.rows if row.sequence == second.sequence and row.sample]
    assert all(stop in row.sample.forbidden for row in rows[:7])


def test_prompts_that_cannot_be_served_are_refused_with_the_reason() -> None:
    it = world(split())
    long = it.request(tuple(range(96)))
    assert it.ended[long.sequence].code == "context_length_exceeded" and "96 tokens" in it.ended[long.sequence].message
    empty = it.request(())
    assert it.ended[empty.sequence].code == "empty_prompt"
    wrong = it.request((1,), decode="p")
    assert it.ended[wrong.sequence].code == "unknown_place" and "d" in it.ended[wrong.sequence].message
    small = world(alone(slots=1), waiting_limit=2)
    refused = [small.request((1, 2)) for _ in range(4)][-1]
    assert small.ended[refused.sequence].code == "queue_full"


def test_placement_is_obeyed_for_every_pair() -> None:
    runners = tuple(facts(name, ("prefill", "decode")) for name in "abc")
    it = world(runners)
    wanted = {}
    for prefill in "abc":
        for decode in "abc":
            request = it.request((1, 2, 3, 4), prefill=prefill, decode=decode, max_tokens=4)
            wanted[request.sequence] = (prefill, decode)
    it.run()
    assert {number: (item.prefill, item.decode) for number, item in it.placed.items()} == wanted
    assert all(tokens == answer((1, 2, 3, 4), 4) for tokens in it.tokens.values())


def test_decodes_run_between_the_chunks_of_a_long_prompt() -> None:
    it = world(alone())
    it.request((1,), max_tokens=30)
    for _ in range(4):
        it.act()
    it.request(tuple(range(49)), max_tokens=2)
    it.run()
    phases = [batch.phase for batch in it.batches]
    first, last = phases.index("prefill", 1), len(phases) - 1 - phases[::-1].index("prefill")
    assert "decode" in phases[first:last]
    assert all(phases[i : i + 2] != ["prefill", "prefill"] for i in range(first, last))


def test_prompts_end_one_after_another_and_short_ones_pass_long_ones() -> None:
    it = world(split())
    long, second, short = (it.request(tuple(range(count)), max_tokens=1) for count in (49, 49, 3))
    it.run()
    order = [batch.rows[0].sequence for batch in it.batches if batch.phase == "prefill"]
    assert order == [long.sequence, short.sequence, *[long.sequence] * 6, *[second.sequence] * 7]


def test_a_long_prompt_is_not_starved_by_an_endless_row_of_short_ones() -> None:
    it = world(split())
    long = it.request(tuple(range(49)), max_tokens=1)
    for _ in range(200):
        if len([s for s in it.state.sequences if s != long.sequence]) < 2:
            it.request((1, 2, 3, 4, 5), max_tokens=1)
        it.act()
    assert long.sequence in it.ended


def test_a_fragmented_bucket_is_compacted() -> None:
    it = world(alone(slots=4))
    requests = [it.request((index,), max_tokens=14) for index in range(4)]
    while len(it.tokens.get(4, [])) < 2:
        it.act()
    moved: list[Move] = []
    for number in (2, 3):
        it.cancel(number)
    it.cancel(1)
    moved = [message for _, message in it.pending if isinstance(message, Move)]
    it.run()
    assert it.tokens[4] == answer((3,), 14)
    assert it.batches[-1].count == 1
    assert moved or requests


def test_a_runner_has_one_batch_in_flight() -> None:
    it = world(alone())
    for _ in range(6):
        it.request((1, 2, 3))
        assert sum(isinstance(message, Submit) for _, message in it.pending) == 1


def test_the_name_of_a_prefix_depends_on_every_token_and_on_the_salt() -> None:
    tokens = tuple(range(40))
    assert name_of(tokens, page=16, salt="a") != name_of(tokens, page=16, salt="b")
    for at in (0, 17, 39):
        changed = (*tokens[:at], 99, *tokens[at + 1 :])
        assert name_of(changed, page=16, salt="a") != name_of(tokens, page=16, salt="a")


def test_sampling_parameters_travel_with_the_rows() -> None:
    it = world(alone())
    sampling = Sampling(temperature=0.7, top_p=0.9, seed=5)
    it.request((1, 2, 3), sampling=sampling, max_tokens=3)
    it.run()
    assert {row.sample for batch in it.batches for row in batch.rows if row.sample} == {sampling}
