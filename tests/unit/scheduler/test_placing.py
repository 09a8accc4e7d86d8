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
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
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
