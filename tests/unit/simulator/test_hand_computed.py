"""Runs whose every time can be reckoned by hand."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulator_world import OVERHEAD, TABLE, Listed, facts, link, run, setup, times

from inlay.errors import InputError
from inlay.simulator import result_of

STEP = OVERHEAD + TABLE.seconds(batch=1, width=1, past=64)


def chunk(width: int) -> float:
    return TABLE.seconds(batch=1, width=width, past=64)


def test_a_prompt_of_two_chunks_and_single_steps() -> None:
    found = times(run(setup(), Listed((1.0, 40, 4))))[0]
    first = 1.0 + 2 * OVERHEAD + chunk(32) + chunk(8)
    assert found == pytest.approx([first + i * STEP for i in range(4)])


def test_rounds_in_a_row_pay_the_messages_once() -> None:
    found = times(run(setup(facts(rounds=8)), Listed((0.0, 8, 5))))[0]
    first = OVERHEAD + chunk(8)
    assert found == pytest.approx([first, *(first + OVERHEAD + i * (STEP - OVERHEAD) for i in range(1, 5))])


def test_one_that_comes_in_between_takes_turns_with_the_steps_of_the_other() -> None:
    """The second comes while the second step runs. Steps get twice the time of the first one's chunk before its own: that is
    over during the third. Then both decode together."""
    simulation = run(setup(), Listed((0.0, 8, 6), (OVERHEAD + chunk(8) + 1.5 * STEP, 8, 2)))
    first, second = times(simulation)[0] or [], times(simulation)[1] or []
    assert 2 * STEP < 2 * chunk(8) < 3 * STEP
    begun = OVERHEAD + chunk(8) + 3 * STEP
    assert second[0] == pytest.approx(begun + OVERHEAD + chunk(8))
    both = OVERHEAD + TABLE.seconds(batch=2, width=1, past=64)
    assert second[1] == pytest.approx(second[0] + both)
    assert first[4] == pytest.approx(second[1])
    assert first[5] == pytest.approx(first[4] + STEP)


def test_a_paged_runner_takes_time_for_the_kv_that_is_there() -> None:
    found = times(run(setup(facts(paged=True, page=16, pages=64, capacities=(1024,))), Listed((0.0, 8, 3))))[0] or []
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert gaps == pytest.approx([OVERHEAD + TABLE.seconds(batch=1, width=1, past=past) for past in (8, 9)])


def test_a_hand_off_sends_chunks_while_the_next_is_computed() -> None:
    """40 rows of 1000 bytes: 32 leave after the first chunk and 8 after the second, at a million bytes a second."""
    given = setup(facts("left", roles=("prefill",)), facts("right", roles=("decode",)), links=(link("left", "right"),))
    simulation = run(given, Listed((0.0, 40, 3)))
    found = times(simulation)[0] or []
    ended = OVERHEAD / 2 + chunk(32) + OVERHEAD + chunk(8)
    gone = max(OVERHEAD / 2 + chunk(32) + 0.032, ended) + 0.008
    assert found[0] == pytest.approx(ended + OVERHEAD / 2)
    assert found[1] == pytest.approx(gone + 0.003 + STEP)
    assert simulation.handoffs.carried == pytest.approx(40_000)


def test_two_hand_offs_share_a_link() -> None:
    """Two sources end a chunk at the same time; their rows share the link: both are there when twice the bytes have gone."""
    sources = [facts(name, roles=("prefill",), slots=1) for name in ("a", "b")]
    ways = [link(name, "right", name="shared") for name in ("a", "b")]
    given = setup(*sources, facts("right", roles=("decode",)), links=tuple(ways))
    simulation = run(given, Listed((0.0, 32, 2), (0.0, 32, 2)))
    assert {record.prefill for record in simulation.recorder.records.values()} == {"a", "b"}
    arrived = OVERHEAD / 2 + chunk(32) + 0.064 + 0.003
    both = OVERHEAD + TABLE.seconds(batch=1, width=1, past=64)
    assert min(found[1] for found in times(simulation).values() if found) == pytest.approx(arrived + both)


def test_a_lost_source_has_its_prompts_computed_where_they_decode() -> None:
    given = setup(facts("left", roles=("prefill",)), facts("right"), links=(link("left", "right"),), failures={"left": 0.02})
    busy = Listed(*((0.0, 300, 40) for _ in range(6)))
    simulation = run(given, busy)
    assert simulation.recorder.recomputed > 0
    assert result_of(simulation).completed == 6


def test_a_device_that_fails_takes_all_its_runners_with_it() -> None:
    runners = (facts("a", device="chip:0"), facts("b", device="chip:0"))
    simulation = run(setup(*runners, failures={"chip:0": 0.5}), Listed((1.0, 8, 2)))
    assert [item.alive for item in simulation.runners.values()] == [False, False]
    assert result_of(simulation).failed == {"no_runner": 1}


def test_a_lost_decoder_ends_what_it_had() -> None:
    simulation = run(setup(failures={"one": 0.5}), Listed((0.0, 8, 1000), (1.0, 8, 2)))
    assert result_of(simulation).failed == {"device_lost": 1, "no_runner": 1}
    record = simulation.recorder.records[0]
    assert record.ended == 0.5
    assert 0 < record.tokens < 1000


def test_kept_prefixes_are_not_computed_again() -> None:
    prompt = tuple(range(1, 41))
    given = setup(facts(page=16, pages=64))
    simulation = run(given, Listed((0.0, 40, 2), (5.0, 40, 2), prompt=prompt))
    assert [record.cached for record in simulation.recorder.records.values()] == [0, 32]
    assert result_of(simulation).prefix_hit_rate == pytest.approx(32 / 80)
    assert (times(simulation)[1] or [])[0] == pytest.approx(5.0 + OVERHEAD + chunk(8))


def test_busy_and_idle_make_the_whole_run() -> None:
    result = result_of(run(setup(), Listed((0.0, 8, 3))))
    (use,) = result.devices
    assert use.busy == pytest.approx({"prefill": chunk(8), "decode": 2 * (STEP - OVERHEAD)})
    assert use.idle == pytest.approx(3 * OVERHEAD)
    assert result.seconds == pytest.approx(use.idle + sum(use.busy.values()))


def test_goodput_counts_what_keeps_every_budget() -> None:
    simulation = run(setup(), Listed((0.0, 8, 3), (0.0, 8, 3)))
    limits = sorted(record.ttft for record in simulation.recorder.records.values())
    result = result_of(simulation, budgets={"ttft": (limits[0] + limits[1]) / 2})
    assert result.goodput_share == 0.5
    assert result.goodput == pytest.approx(1 / result.seconds)


def test_a_runner_without_a_table_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="runner 'one' has no latency table"):
        run(setup(facts(table=None)), Listed((0.0, 8, 3)))


def test_a_missing_link_is_named() -> None:
    given = setup(facts("left", roles=("prefill",)), facts("right", roles=("decode",)))
    with pytest.raises(InputError, match="no link from left to right"):
        run(given, Listed((0.0, 8, 3)))
