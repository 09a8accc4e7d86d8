"""Where prompts are computed: the cheapest way by predicted time, prefixes known at either end, prompts in two parts."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scheduler_world import World, answer

from inlay.scheduler import new_state
from inlay.scheduler.handoff import SHUNNED_SECONDS
from inlay.scheduler.placing import Way, choose_way
from inlay.scheduler.sequence import new_sequence
from inlay.specs.kv import QUARANTINED
from inlay.specs.latency import LatencyTable
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import RunnerFacts, SchedulerSetup, SequenceRequest
from inlay.specs.speculation import SpeculationSetup


def table(per_token: float, *, fixed: float = 0.005) -> LatencyTable:
    return LatencyTable(fixed=fixed, per_row=0.0, per_token=per_token, per_past=0.0, spread=0.0, overhead=0.0, grade="modelled")


def facts(name: str, *roles: str, per_token: float | None = None, pages: int = 0, slots: int = 4) -> RunnerFacts:
    return RunnerFacts(
        runner=name,
        epoch=1,
        roles=roles,
        capacities=(48, 96),
        slots=slots,
        chunk=8,
        page=8,
        pages=pages,
        kv_bytes=100,
        table=None if per_token is None else table(per_token),
    )


def world(*runners: RunnerFacts, seed: int = 0) -> World:
    setup = SchedulerSetup(facts=runners, context=96, speculation=SpeculationSetup(mode="off"))
    return World(new_state(setup), random.Random(seed))


PROMPT = tuple(range(40))


def test_a_slow_prefill_runner_is_not_used_where_the_decode_runner_is_idle() -> None:
    it = world(facts("p", "prefill", per_token=0.01), facts("d", "prefill", "decode", per_token=0.001))
    it.request(PROMPT)
    assert it.placed[1].way == "whole" and it.placed[1].prefill == "d"


def test_a_fast_prefill_runner_is_used_and_its_rows_handed_off() -> None:
    it = world(facts("p", "prefill", per_token=0.0001, slots=9), facts("d", "prefill", "decode", per_token=0.01, slots=9))
    request = it.request(PROMPT, max_tokens=5)
    assert it.placed[1].way == "split"
    it.run()
    assert it.tokens[request.sequence] == answer(PROMPT, 5) and it.prompt_rows["d"] == 0


def test_sequences_that_decode_are_not_held_up_by_a_prompt_that_can_be_computed_elsewhere() -> None:
    it = world(facts("p", "prefill", per_token=0.002, slots=9), facts("d", "prefill", "decode", per_token=0.001, slots=9))
    it.request((1,), max_tokens=60)
    it.request((2,), max_tokens=60)
    for _ in range(30):
        it.act()
    it.request(PROMPT)
    assert it.placed[1].way == "whole" and it.placed[3].way != "whole"


def test_a_weaker_runner_takes_the_first_part_of_prompts_while_the_stronger_one_is_busy() -> None:
    it = world(facts("p", "prefill", per_token=0.004, slots=30), facts("d", "prefill", "decode", per_token=0.002, slots=30))
    requests = [it.request(tuple(range(n, n + 40)), max_tokens=4) for n in range(12)]
    it.run()
    assert {placed.way for placed in it.placed.values()} >= {"part", "whole"}
    for request in requests:
        assert it.tokens[request.sequence] == answer(request.prompt, 4)
    assert it.prompt_rows["d"] > 0 and it.prompt_rows["p"] > 0


@pytest.mark.parametrize("fault_share", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(8))
def test_parts_prefixes_and_faults_change_no_answer(seed, fault_share) -> None:
    rng = random.Random(seed)
    it = world(
        facts("p", "prefill", per_token=0.005, pages=30),
        facts("q", "prefill", per_token=0.004, pages=4),
        facts("d", "prefill", "decode", per_token=0.002, pages=20),
        facts("e", "decode", per_token=0.002, pages=8),
        seed=seed,
    )
    it.kv_fault_share = fault_share
    before = {name: runner.pool.free_count() for name, runner in it.state.runners.items()}
    stems = [tuple(rng.randrange(50) for _ in range(rng.randint(10, 60))) for _ in range(3)]
    requests = []
    for _ in range(40):
        stem = rng.choice(stems)
        tokens = (*stem[: rng.randint(1, len(stem))], *(rng.randrange(50) for _ in range(rng.randint(0, 9))))
        requests.append(it.request(tokens, max_tokens=rng.randint(1, 20)))
        for _ in range(rng.randint(0, 10)):
            it.act()
        if rng.random() < 0.15 and requests[-1].sequence not in it.ended:
            it.cancel(requests[-1].sequence)
    it.run()
    for request in requests:
        found = it.tokens.get(request.sequence, [])
        expected = answer(request.prompt, min(request.max_tokens, 96 - len(request.prompt)))
        assert found == expected[: len(found)] and (it.ended[request.sequence].reason == "cancelled" or found == expected)
    assert {name: runner.pool.free_count() for name, runner in it.state.runners.items()} == before
    assert not it.state.handoffs and {placed.way for placed in it.placed.values()} > {"split"}


def test_rows_that_both_ends_know_are_neither_computed_nor_sent() -> None:
    it = world(facts("p", "prefill", pages=30), facts("d", "decode", pages=30))
    first = it.request(PROMPT, max_tokens=2)
    it.run()
    starts = []
    second = it.request((*PROMPT, 7, 7), max_tokens=2)
    starts = [message.binding.start for _, message in it.pending if hasattr(message, "binding")]
    it.run()
    assert starts == [40, 40]
    assert it.prompt_rows["p"] == 40 + 2
    assert it.tokens[second.sequence] == answer(second.prompt, 2) and it.tokens[first.sequence] == answer(PROMPT, 2)


def test_a_table_is_evaluated_as_it_says() -> None:
    it = msgspec.structs.replace(table(0.002), per_row=0.1, per_past=0.01)
    assert it.seconds(batch=3, width=4, past=5) == pytest.approx(0.005 + 3 * (0.1 + 0.008 + 0.05))


def chosen(it: World, prompt: tuple[int, ...], max_tokens: int) -> Way:
    """The way that a request would go now."""
    sequence = new_sequence(
        SequenceRequest(
            sequence=99,
            request="r99",
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=Sampling(temperature=0),
            entropy=bytes(16),
        )
    )
    runners = list(it.state.runners.values())
    found = choose_way(
        it.state,
        sequence,
        [item for item in runners if "prefill" in item.facts.roles],
        [item for item in runners if "decode" in item.facts.roles],
    )
    assert found is not None
    return found


def two(first: LatencyTable, second: LatencyTable) -> World:
    both = ("prefill", "decode")
    made = [msgspec.structs.replace(facts(name, *both, slots=9), table=item) for name, item in (("a", first), ("b", second))]
    return world(*made)


def test_on_an_idle_pair_the_cost_is_what_it_is_by_hand() -> None:
    # a: a chunk of 8 takes 8 ms, a step 1 ms; b: a chunk 80 ms, a step 10 ms. 40 rows: 5 chunks.
    it = two(table(0.001, fixed=0.0), table(0.01, fixed=0.0))
    way = chosen(it, PROMPT, 10)
    assert (way.name, way.prefill.name) == ("whole", "a")
    assert way.seconds == pytest.approx(5 * 0.008) and way.cost == pytest.approx(1.0 + 1.0)


def test_a_prompt_goes_where_prompts_are_quick_and_its_tokens_where_steps_are() -> None:
    # a: a chunk takes 18 ms, a step 11 ms. b: a chunk 34 ms, a step 6 ms. 40 rows: 90 ms or 170 ms.
    it = two(table(0.001, fixed=0.010), table(0.004, fixed=0.002))
    way = chosen(it, PROMPT, 40)
    assert (way.name, way.prefill.name, way.decode.name) == ("split", "a", "b")
    # The first token as soon as alone; 40 tokens of 6 ms each, with 5 ms and the bytes of 8 rows for the hand-off.
    assert way.seconds == pytest.approx(0.090)
    assert way.cost == pytest.approx(1.0 + (0.006 + (0.005 + 8 * 100 / 1e9) / 40) / 0.006)


def test_an_answer_too_short_for_a_hand_off_stays_where_its_prompt_is() -> None:
    # As above, but for 2 tokens the hand-off adds 2.5 ms to each of 6, where steps of 6.8 ms need none.
    it = two(table(0.001, fixed=0.0058), table(0.004, fixed=0.002))
    assert chosen(it, PROMPT, 2).name == "whole" and chosen(it, PROMPT, 60).name == "split"


def test_how_long_answers_are_is_learned_from_those_that_end() -> None:
    it = world(facts("d", "prefill", "decode", per_token=0.001))
    before = it.state.answers
    for number in range(60):
        it.request((number % 40,), max_tokens=3)
        it.run()
    assert before == 64 and it.state.answers == pytest.approx(3, abs=0.2)


def test_a_table_of_zeros_is_no_reason_to_fail() -> None:
    it = two(table(0.0, fixed=0.0), table(0.0, fixed=0.0))
    assert chosen(it, PROMPT, 5).name == "whole"


def test_a_choice_says_what_was_weighed_and_the_chosen_one_first() -> None:
    it = world(facts("p", "prefill", per_token=0.0001, slots=9), facts("d", "prefill", "decode", per_token=0.01, slots=9))
    it.request(PROMPT, max_tokens=5)
    placed = it.placed[1]
    assert placed.way == "split" and placed.weighed[0].way == "split" and not placed.asked
    assert {item.way for item in placed.weighed} == {"whole", "split", "part"}
    assert [item.cost for item in placed.weighed] == sorted(item.cost for item in placed.weighed)
    assert all(item.seconds > 0 for item in placed.weighed)
    it.request(PROMPT, max_tokens=5, prefill="d")
    assert it.placed[2].asked and {item.way for item in it.placed[2].weighed} == {"whole"}


def test_no_hand_off_is_tried_from_a_source_in_quarantine_until_its_time_is_over() -> None:
    it = world(facts("p", "prefill", per_token=0.0001, slots=9), facts("d", "prefill", "decode", per_token=0.01, slots=9))
    it.kv_fault_share, it.kv_fault = 1.0, QUARANTINED
    first = it.request(PROMPT, max_tokens=5)
    it.run()
    second = it.request(PROMPT[::-1], max_tokens=5)
    assert (it.placed[1].way, it.placed[2].way) == ("split", "whole")
    it.run()
    assert it.tokens[first.sequence] == answer(PROMPT, 5) and it.tokens[second.sequence] == answer(PROMPT[::-1], 5)
    it.now += SHUNNED_SECONDS
    it.request(PROMPT[1:], max_tokens=5)
    assert it.placed[3].way == "split"


def test_a_request_that_leaves_no_other_way_is_handed_off_from_a_source_in_quarantine() -> None:
    it = world(facts("p", "prefill", per_token=0.0001, slots=9), facts("d", "prefill", "decode", per_token=0.01, slots=9))
    it.kv_fault_share, it.kv_fault = 1.0, QUARANTINED
    it.request(PROMPT, max_tokens=5)
    it.run()
    again = it.request(PROMPT[::-1], max_tokens=5, prefill="p", decode="d")
    it.run()
    assert it.placed[2].way == "split" and it.tokens[again.sequence] == answer(PROMPT[::-1], 5)
