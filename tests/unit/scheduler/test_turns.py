"""How prompts and decode steps share a runner, on a virtual clock; what the scheduler chooses beside what can be forced."""

from __future__ import annotations

import random
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timed_world import TimedWorld

from inlay.scheduler import new_state
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.speculation import SpeculationSetup

STEP, CHUNK = 0.002, 0.0148
QUICK = LatencyTable(fixed=0.0019, per_row=0.0, per_token=1e-4, per_past=0.0, spread=0.0, overhead=0.0, grade="modelled")
SLOW = LatencyTable(fixed=0.0020, per_row=0.0, per_token=1.2e-4, per_past=0.0, spread=0.0, overhead=0.0, grade="modelled")
BOTH = ("prefill", "decode")


def world(*roles: tuple[str, ...]) -> TimedWorld:
    found = [
        RunnerFacts(
            runner=name,
            epoch=1,
            roles=some,
            capacities=(1024,),
            slots=16,
            chunk=128,
            page=16,
            kv_bytes=6144,
            table=made,
            rounds=16,
            device=name,
        )
        for name, some, made in zip("ab", roles, (QUICK, SLOW), strict=False)
    ]
    setup = SchedulerSetup(facts=tuple(found), context=1024, speculation=SpeculationSetup(mode="off"))
    return TimedWorld(new_state(setup), random.Random(0))


def prompt(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.choices(range(50), k=count))


def test_while_prompts_wait_tokens_take_half_as_long_again_and_prompts_keep_a_third_of_the_time() -> None:
    rng, it = random.Random(1), world(BOTH)
    reader = it.request(prompt(rng, 16), max_tokens=200)
    it.at(0.1, lambda: [it.request(prompt(rng, 640), max_tokens=1) for _ in range(2)])
    it.run()
    ended = max(times[0] for number, times in it.heard.items() if number != reader.sequence)
    during = [time for time in it.heard[reader.sequence] if 0.1 <= time <= ended]
    alone = 10 * CHUNK  # 1,280 rows
    assert (ended - 0.1) / alone == pytest.approx(3.0, abs=0.35)
    assert (during[-1] - during[0]) / (len(during) - 1) / STEP == pytest.approx(1.5, abs=0.2)


def test_between_two_chunks_steps_run_in_a_row_and_a_chunk_begins_when_it_should() -> None:
    rng, it = random.Random(1), world(BOTH)
    it.request(prompt(rng, 16), max_tokens=200)
    it.at(0.1, lambda: it.request(prompt(rng, 640), max_tokens=1) and None)
    it.run()
    after = it.batches[next(i for i, batch in enumerate(it.batches) if len(batch.rows[0].tokens) > 16) :]
    chunks = [i for i, batch in enumerate(after) if batch.phase == "prefill"]
    fit = int(2 * CHUNK / STEP)
    assert len(chunks) == 5
    for first, second in pairwise(chunks):
        between = after[first + 1 : second]
        assert between[0].rounds == fit <= len(between) <= fit + 1
        assert len({batch.batch for batch in between}) <= 2


def test_prompts_have_a_runner_for_themselves_where_nothing_decodes() -> None:
    rng, it = random.Random(1), world(BOTH)
    for _ in range(3):
        it.request(prompt(rng, 512), max_tokens=1)
    it.run()
    assert it.now == pytest.approx(12 * CHUNK, rel=0.01)


def goodput(roles: tuple[tuple[str, ...], ...], rate: float, *, by_queue: bool = False) -> float:
    """Share of requests of a Poisson process with a first token within 0.28 s and 5 ms for each of the others."""
    kept = []
    for seed in range(3):
        rng, it, at = random.Random(seed), world(*roles), 0.0
        due: dict[int, float] = {}
        places: dict[int, str] = {}

        def arrive(
            tokens: tuple[int, ...],
            count: int,
            *,
            it: TimedWorld = it,
            due: dict[int, float] = due,
            places: dict[int, str] = places,
        ) -> None:
            waiting = [place for number, place in places.items() if number not in it.ended]
            place = min("ab", key=waiting.count) if by_queue else None
            number = it.sequences + 1
            due[number] = it.now
            if place is not None:
                places[number] = place
            it.request(tokens, max_tokens=count, prefill=place, decode=place)

        for _ in range(32):
            at += rng.expovariate(rate)
            tokens, count = prompt(rng, rng.randint(256, 704)), rng.randint(8, 24)
            it.at(at, lambda tokens=tokens, count=count, arrive=arrive: arrive(tokens, count))  # type: ignore[misc]
        it.run()
        for number, times in it.heard.items():
            steady = (times[-1] - times[0]) / (len(times) - 1) <= 0.005
            kept.append(times[0] - due[number] <= 0.28 and steady)
    return statistics.mean(kept)


@pytest.mark.parametrize("rate", [8.0, 16.0])
def test_what_the_scheduler_chooses_keeps_as_many_budgets_as_the_better_of_split_and_mixed(rate: float) -> None:
    splits = [goodput((("prefill",), ("decode",)), rate), goodput((("decode",), ("prefill",)), rate)]
    mixed = goodput((BOTH, BOTH), rate, by_queue=True)
    chosen = goodput((BOTH, BOTH), rate)
    assert chosen >= 0.95 * max(*splits, mixed), (chosen, splits, mixed)
