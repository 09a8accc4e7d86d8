"""Requests of each kind of workload come when and as long as they should; recorded prefixes are hit as often as recorded."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import itertools

from simulator_world import facts, run, setup

from inlay.simulator import Planned, make_source, result_of
from inlay.simulator.arrivals import WorkloadSource, of_blocks
from inlay.specs.workload import Workload, parse_workload

ROOMY = facts(capacities=(4096,), page=16, pages=4096)


def all_of(source: WorkloadSource) -> list[Planned]:
    found = []
    while (planned := source.next_timed()) is not None:
        found.append(planned)
    return found


def test_an_open_loop_has_the_rate_and_lengths_that_it_was_given_and_the_same_seed_the_same_requests() -> None:
    workload = parse_workload("isl=uniform:10:30,osl=5,rate=4,requests=2000")
    found = all_of(make_source(workload, context=1024))
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(found)]
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.1)
    assert statistics.pstdev(gaps) == pytest.approx(0.25, rel=0.15)  # as a Poisson process has it
    assert {len(item.prompt) for item in found} == set(range(10, 31))
    assert found == all_of(make_source(workload, context=1024))
    assert found != all_of(make_source(parse_workload("isl=uniform:10:30,osl=5,rate=4,requests=2000,seed=1"), context=1024))


def test_engines_that_are_served_in_turn_share_all_requests() -> None:
    workload = parse_workload("isl=20,osl=5,rate=4,requests=11")
    parts = [all_of(make_source(workload, context=1024, share=(part, 3))) for part in range(3)]
    whole = all_of(make_source(workload, context=1024))
    assert sorted((item for part in parts for item in part), key=lambda item: item.at) == whole


def test_a_closed_loop_keeps_as_many_open_as_there_are_clients() -> None:
    simulation = run(setup(), "isl=20,osl=10,clients=3,think=0.5,requests=12")
    records = list(simulation.recorder.records.values())
    events = sorted([(item.arrived, 1) for item in records] + [(item.ended, -1) for item in records])
    level = [sum(change for _, change in events[: i + 1]) for i in range(len(events))]
    assert max(level) == 3
    later = sorted(item.arrived for item in records)[3:]
    ends = sorted(item.ended for item in records)[: len(later)]
    assert later == pytest.approx([end + 0.5 for end in ends])


def test_what_is_longer_than_the_context_is_cut_and_counted() -> None:
    source = make_source(parse_workload("isl=2000,osl=900,rate=1,requests=2"), context=1024)
    assert [(len(item.prompt), item.max_tokens) for item in all_of(source)] == [(511, 512)] * 2
    assert source.fitting.clipped == 2


def test_equal_blocks_are_equal_tokens_within_their_scope_only() -> None:
    one = of_blocks((1, 2), 100, block=64, scope=1)
    assert len(one) == 100
    assert one[:64] == of_blocks((1, 3), 128, block=64, scope=1)[:64]
    assert one[64:] != of_blocks((1, 3), 128, block=64, scope=1)[64:100]
    assert one[:64] != of_blocks((1, 2), 100, block=64, scope=2)[:64]


def test_scaled_prompts_share_as_much_of_each_other_as_the_recorded_ones() -> None:
    whole = [of_blocks(ids, 300, block=100, scope=0) for ids in ((1, 2, 3), (1, 2, 4))]
    tenth = [of_blocks(ids, 30, block=100 * 0.1, scope=0) for ids in ((1, 2, 3), (1, 2, 4))]
    same = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in (whole, tenth)]
    assert same == [200, 20]


def test_blocks_of_a_recorded_trace_are_hit(tmp_path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 1024, "output_length": 2, "hash_ids": [1, 2]},
        {"timestamp": 60000, "input_length": 1536, "output_length": 2, "hash_ids": [1, 2, 3]},
        {"timestamp": 120000, "input_length": 1024, "output_length": 2, "hash_ids": [4, 2]},
    ]
    trace = tmp_path / "mooncake.jsonl"
    trace.write_text("\n".join(map(json.dumps, rows)))
    given = setup(ROOMY)
    scheduler = given.scheduler.__class__(facts=given.scheduler.facts, context=4096)
    given = given.__class__(scheduler=scheduler)
    simulation = run(given, make_source(Workload(trace=str(trace), speed=2), context=4096))
    records = list(simulation.recorder.records.values())
    assert [item.cached for item in records] == [0, 1024, 0]
    assert [item.arrived for item in records] == [0.0, 30.0, 60.0]


def test_an_agent_session_grows_its_prefix_and_waits_for_its_tools(tmp_path) -> None:
    turns = [
        {"type": "n", "in": 256, "out": 3, "hash_ranges": [[1, 4]]},
        {"type": "s", "in": 512, "out": 3, "think_time": 7.0, "hash_ranges": [[1, 8]]},
        {"type": "subagent", "requests": [{"type": "n", "in": 128, "out": 3, "think_time": 1.0, "hash_ranges": [[90, 91]]}]},
        {"type": "n", "in": 640, "out": 3, "think_time": 2.0, "hash_ranges": [[1, 10]]},
    ]
    trace = tmp_path / "sessions.jsonl"
    trace.write_text("\n".join(json.dumps({"id": name, "block_size": 64, "requests": turns}) for name in ("a", "b")))
    given = setup(ROOMY)
    simulation = run(given, make_source(Workload(trace=str(trace), clients=1), context=1024))
    records = list(simulation.recorder.records.values())
    assert [item.cached for item in records] == [0, 256, 0, 512] * 2  # the second session shares nothing with the first
    waits = [later.arrived - earlier.ended for earlier, later in itertools.pairwise(records)]
    assert waits == pytest.approx([7.0, 1.0, 2.0, 0.0, 7.0, 1.0, 2.0])
    assert result_of(simulation).prefix_hit_rate == pytest.approx((256 + 512) / (256 + 512 + 128 + 640))
