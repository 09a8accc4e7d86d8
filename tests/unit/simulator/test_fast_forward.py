"""Fast-forward gives, to the last bit, the token times of single steps: where slots fill up, in rounds, hand-offs, failures."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulator_world import facts, link, run, setup, times

from inlay.scheduler import advance
from inlay.simulator import SimulationSetup, coasting, result_of, simulation

BUSY = "isl=lognormal:100:0.7,osl=lognormal:40:0.8,rate=6,requests={}"
PAGED = {"paged": True, "page": 16, "pages": 400, "capacities": (1024,)}
TWO = (facts("left", roles=("prefill",)), facts("right", rounds=16))
WAYS = (link("left", "right"), link("right", "left"))


def agree(given: SimulationSetup, workload: str) -> None:
    single, fast = run(given, workload, fast=False), run(given, workload)
    assert times(fast) == times(single)
    assert fast.recorder.gaps == single.recorder.gaps
    assert result_of(fast, with_each=True) == result_of(single, with_each=True)
    assert all(record.reason == "length" and record.tokens == record.wanted for record in fast.recorder.records.values())


@pytest.mark.parametrize(
    "given",
    [
        setup(),
        setup(facts(rounds=16)),
        setup(facts(rooms=(6, 4, 2))),
        setup(facts(rounds=16, rooms=(6, 4, 2))),
        setup(facts(batches=(1, 4), slots=8)),
        setup(facts(page=16, pages=64)),
        setup(facts(rounds=16, **PAGED)),
        setup(facts(**PAGED)),
        setup(facts(rounds=16, **{**PAGED, "pages": 60})),
        setup(facts(**{**PAGED, "pages": 60})),
        setup(facts("a", rounds=16), facts("b"), links=(link("a", "b"), link("b", "a"))),
        setup(facts("a", rounds=16), facts("b", rounds=16), links=(link("a", "b"), link("b", "a"))),
        setup(*TWO, links=WAYS),
    ],
    ids=[
        "slots",
        "rounds",
        "scarce",
        "scarce-rounds",
        "sizes",
        "pages",
        "paged",
        "paged-steps",
        "paged-scarce",
        "paged-scarce-steps",
        "two",
        "two-rounds",
        "hand-off",
    ],
)
def test_it_agrees_with_single_steps(given) -> None:
    agree(given, BUSY.format(300))


def test_it_agrees_with_single_steps_on_ten_thousand_requests() -> None:
    agree(setup(facts(rounds=16, rooms=(8, 6, 4))), "isl=lognormal:60:0.7,osl=lognormal:16:0.8,rate=4,requests=10000")


@pytest.mark.parametrize("at", [0.5, 1.0, 3.0])
def test_it_agrees_where_a_device_fails(at) -> None:
    given = setup(facts("a", rounds=16), facts("b", rounds=16), links=(link("a", "b"), link("b", "a")), failures={"a": at})
    single, fast = run(given, BUSY.format(100), fast=False), run(given, BUSY.format(100))
    assert times(fast) == times(single)
    assert result_of(fast).failed == result_of(single).failed != {}


def test_in_a_closed_loop_it_agrees_too() -> None:
    agree(setup(facts(rounds=16)), "isl=uniform:20:300,osl=uniform:5:90,clients=12,think=0.01,requests=300")


def test_rounds_that_a_prompt_waits_beside_may_be_ended_by_whatever_happens_elsewhere(monkeypatch) -> None:
    """Where two runners share a device rounds begin late, and a prompt has its turn before they are over."""
    names = "abc"
    runners = [facts(name, rounds=16, device="own" if name == "a" else "shared") for name in names]
    given = setup(*runners, links=tuple(link(one, other) for one in names for other in names if one != other))
    load = "isl=lognormal:150:0.7,osl=lognormal:80:0.8,rate=6,requests=80,seed=5"
    agree(given, load)
    monkeypatch.setattr(simulation, "turn_is_awaited", lambda state: False)
    assert times(run(given, load)) != times(run(given, load, fast=False))


def test_it_takes_fewer_steps() -> None:
    steps = []
    for fast in (False, True):
        seen: list[object] = []
        run(
            setup(),
            "isl=64,osl=400,rate=0.5,requests=20",
            fast=fast,
            observer=lambda event, commands, now, into=seen: into.append(event),
        )
        steps.append(len(seen))
    assert steps[1] * 5 < steps[0]


def test_a_fast_forward_that_forgets_a_token_is_seen(monkeypatch) -> None:
    def drifting(state, runner, found, *, tokens, **others) -> None:  # type: ignore[no-untyped-def]
        advance(state, runner, found, tokens=[given[1:] for given in tokens], **others)

    single = run(setup(), BUSY.format(50), fast=False)
    monkeypatch.setattr(coasting, "advance", drifting)
    assert times(run(setup(), BUSY.format(50))) != times(single)


def test_a_table_that_is_one_percent_off_is_seen() -> None:
    table = msgspec.structs.replace(facts().table, fixed=0.0101)
    assert times(run(setup(), BUSY.format(20))) != times(run(setup(facts(table=table)), BUSY.format(20)))
