"""Which mode and draft length are chosen: from step times and acceptance, off where nothing pays, tried again now and then."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scheduler_world import World, answer

from inlay.scheduler import new_state
from inlay.specs.latency import LatencyTable, Point, corrected, fit_table
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.speculation import (
    ENUMERATED,
    FREE,
    NGRAM,
    OFF,
    SYNCHRONOUS,
    WORTH_WHILE,
    SpeculationSetup,
    Speeds,
    expected_tokens,
    gain,
)


def table(step: float, *, per_token: float = 0.0, overhead: float = 0.0) -> LatencyTable:
    return LatencyTable(
        fixed=step, per_row=0.0, per_token=per_token, per_past=0.0, spread=0.0, overhead=overhead, grade="modelled"
    )


def world(*, agreement: float, draft: float, device: str = "b", per_token: float = 0.0002, overhead: float = 0.0) -> World:
    sizes = {"epoch": 1, "capacities": (48, 400), "chunk": 16}
    facts = (
        RunnerFacts(
            runner="t",
            roles=("prefill", "decode"),
            device="a",
            slots=4,
            table=table(0.01, per_token=per_token),
            **sizes,
        ),
        RunnerFacts(runner="d", roles=("draft",), device=device, slots=24, table=table(draft, overhead=overhead), **sizes),
    )
    setup = SchedulerSetup(facts=facts, context=400, speculation=SpeculationSetup(drafts=6, breadth=3))
    it = World(new_state(setup), random.Random(0))
    it.agreement = agreement
    return it


def settled(it: World, tokens: int = 150) -> tuple[str, int]:
    """Mode and draft length after some tokens."""
    request = it.request((1, 2, 3), max_tokens=tokens + 50)
    while len(it.tokens.get(request.sequence, [])) < tokens:
        assert it.act()
    speculation = it.state.sequences[request.sequence].speculation
    assert speculation is not None
    found = speculation.mode, speculation.drafts
    it.run()
    assert it.tokens[request.sequence] == answer(request.prompt, tokens + 50)
    return found


def test_a_good_and_fast_draft_elsewhere_runs_ahead_with_long_guesses() -> None:
    mode, drafts = settled(world(agreement=1.0, draft=0.0014))  # a batch of seven takes as long as a step of the target
    assert mode in (FREE, ENUMERATED) and drafts == 6


def test_a_draft_on_the_targets_own_device_is_waited_for() -> None:
    assert settled(world(agreement=0.9, draft=0.0005, device="a"))[0] == SYNCHRONOUS


@pytest.mark.parametrize("worse", [{"agreement": 0.0}, {"draft": 0.02, "device": "a"}, {"overhead": 5.0}])
def test_where_nothing_pays_it_is_off(worse) -> None:
    it = world(**{"agreement": 0.8, "draft": 0.0005, **worse})
    assert settled(it)[0] == OFF
    rows = [row for batch in it.batches if batch.phase == "decode" for row in batch.rows]
    assert sum(row.drafts > 0 for row in rows) < len(rows) / 8


def test_a_draft_that_takes_longer_than_was_measured_is_given_up() -> None:
    it = world(agreement=1.0, draft=0.0005)
    obey = it.obey

    def slowly(runner: str, message: object) -> None:
        it.now += 0.2 if runner == "d" else 0.0  # of 0.003 that the table says
        obey(runner, message)

    it.obey = slowly  # type: ignore[method-assign]
    assert settled(it, 300)[0] in (OFF, NGRAM)


def test_what_was_learnt_serves_the_next_sequence() -> None:
    it = world(agreement=0.0, draft=0.0005)
    drafted = []
    for _ in range(6):
        before = len(it.batches)
        it.request((1, 2, 3), max_tokens=100)
        it.run()
        drafted.append(sum(row.drafts > 0 for batch in it.batches[before:] for row in batch.rows))
    assert drafted[-1] <= 3 < drafted[0]


def test_it_comes_back_when_drafts_are_good_again() -> None:
    it = world(agreement=0.0, draft=0.0005)
    request = it.request((1, 2, 3), max_tokens=390)
    while len(it.tokens.get(request.sequence, [])) < 80:
        it.act()
    speculation = it.state.sequences[request.sequence].speculation
    assert speculation is not None and speculation.mode == OFF
    it.agreement = 1.0
    while len(it.tokens[request.sequence]) < 380 and speculation.mode == OFF:
        it.act()
    assert speculation.mode != OFF


def test_the_formulas_agree_with_a_simulation() -> None:
    """Rounds drawn token by token; free-running counts the guessed bonus as one more draft that must come true."""
    rng, a, k = random.Random(1), 0.8, 4
    speeds = Speeds(plain=1.0, verify=1.2, draft=0.15, feed=0.0, round_trip=0.1, draft_trip=0.05, plain_trip=0.1)
    for mode in (SYNCHRONOUS, FREE):
        seconds = tokens = 0.0
        ahead = False
        for _ in range(200_000):
            kept = next((i for i in range(k) if rng.random() >= a), k)
            bonus = kept == k and rng.random() < a
            drafting = 0.0 if ahead else k * speeds.draft + speeds.draft_trip
            verify = speeds.verify + speeds.round_trip
            overlapped = max(verify, (k + 1) * speeds.draft + speeds.draft_trip) if mode == FREE and bonus else verify
            seconds += drafting + overlapped
            tokens += kept + 1
            ahead = mode == FREE and bonus
        assert gain(mode, a, k, speeds) == pytest.approx(tokens / seconds * 1.1, rel=0.02)


def test_expected_tokens_and_the_gain_of_nothing() -> None:
    assert expected_tokens(0.8, 4) == pytest.approx(3.3616)
    assert expected_tokens(1.0, 4) == 5.0
    free = Speeds(plain=1.0, verify=1.0, draft=0.0, feed=0.0, round_trip=0.0, draft_trip=0.0, plain_trip=0.0)
    assert gain(OFF, 0.9, 4, free) == 1.0 and gain(NGRAM, 0.0, 4, free) == 1.0 < WORTH_WHILE
    with pytest.raises(ValueError, match="mode is 'auto'"):
        gain("auto", 0.5, 2, free)


def test_a_table_is_fitted_to_what_was_measured_and_corrected_by_what_is_seen() -> None:
    true = LatencyTable(fixed=0.02, per_row=0.001, per_token=0.0005, per_past=1e-6, spread=0.0, overhead=0.0, grade="measured")
    sizes = [(1, 1, 256), (1, 8, 256), (8, 1, 256), (1, 128, 256), (8, 8, 256), (1, 1, 4096), (8, 1, 4096)]
    points = [Point(b, w, p, true.seconds(batch=b, width=w, past=p)) for b, w, p in sizes]
    found = fit_table(points, overhead=0.0, grade="measured")
    assert found.spread < 1e-6
    assert found.seconds(batch=4, width=3, past=1024) == pytest.approx(true.seconds(batch=4, width=3, past=1024))
    factor = 1.0
    for _ in range(60):
        factor = corrected(factor, predicted=0.01, seen=0.02)
    assert factor == pytest.approx(2.0, rel=0.01)
    assert corrected(1.0, predicted=0.0, seen=1.0) == 1.0


def test_sequences_that_decode_together_draft_together() -> None:
    """Each sequence judges by the acceptance of all: a step takes as long as its widest row, so one alone had better not."""
    it = world(agreement=0.6, draft=0.0005, per_token=0.0006)
    for number in range(4):
        it.request((1, 2, 3 + number), max_tokens=300)
    it.run()
    batches = [batch for batch in it.batches if batch.phase == "decode" and len(batch.rows) == 4]
    mixed = [batch for batch in batches if 0 < sum(row.drafts > 0 for row in batch.rows) < 3]
    assert len(batches) > 50 and len(mixed) < len(batches) / 4
