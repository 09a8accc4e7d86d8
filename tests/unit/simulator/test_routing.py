"""Sessions over replicas: a request may name its runner; left alone, the scheduler finds the kept prefixes again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulator_world import facts, link, run, setup

from inlay.simulator import Planned
from inlay.simulator.records import Record
from inlay.simulator.simulation import Simulation

PAGED = {"paged": True, "page": 16, "pages": 400, "capacities": (1024,)}
NAMES = ("a", "b", "c", "d")


class Turns:
    """Sessions whose prompt grows by 64 tokens a turn, each turn a second after the answer; `runner` by session and turn."""

    def __init__(self, sessions: int, turns: int, where) -> None:
        self._sessions, self._turns, self._where = sessions, turns, where
        self._begun = 0
        self._done = [0] * sessions

    def next_timed(self) -> Planned | None:
        if self._begun >= self._sessions:
            return None
        self._begun += 1
        return self._turn(self._begun - 1, 0.01 * self._begun)

    def ended(self, record: Record) -> Planned | None:
        self._done[record.session] += 1
        return self._turn(record.session, record.ended + 1.0) if self._done[record.session] < self._turns else None

    def _turn(self, session: int, at: float) -> Planned:
        turn = self._done[session]
        prompt = tuple(1000 * session + place for place in range(64 * (turn + 1)))
        return Planned(at=at, prompt=prompt, max_tokens=4, session=session, runner=self._where(session, turn))


def played(where, *, sessions: int = 12, turns: int = 8) -> Simulation:
    runners = [facts(name, **PAGED) for name in NAMES]
    links = tuple(link(one, other, bandwidth=1e9) for one in NAMES for other in NAMES if one != other)
    return run(setup(*runners, links=links), Turns(sessions, turns, where))


def hit_rate(simulation: Simulation) -> float:
    records = simulation.recorder.records.values()
    return sum(item.cached for item in records) / sum(item.prompt for item in records)


def test_a_request_that_names_its_runner_is_served_there() -> None:
    simulation = played(lambda session, turn: NAMES[(session + turn) % 4])
    seen = {(item.session, item.prompt // 64 - 1): item for item in simulation.recorder.records.values()}
    assert len(seen) == 96
    for (session, turn), record in seen.items():
        assert record.prefill == record.decode == NAMES[(session + turn) % 4]


def test_sessions_at_home_find_all_but_what_is_new_and_those_sent_around_much_less() -> None:
    at_home = played(lambda session, turn: NAMES[session % 4])
    # turn t has 64 (t + 1) tokens, of which 64 t were computed before: 64 x 28 of 64 x 36 over eight turns
    assert hit_rate(at_home) == pytest.approx(28 / 36, abs=0.01)
    around = played(lambda session, turn: NAMES[(session + turn) % 4])
    assert hit_rate(around) < hit_rate(at_home) - 0.25


def test_left_to_the_scheduler_sessions_that_came_at_once_are_spread_and_find_their_prefixes_again() -> None:
    free = played(lambda session, turn: None)
    prefills: dict[int, set[str]] = {}
    for record in free.recorder.records.values():
        prefills.setdefault(record.session, set()).add(record.prefill)
    assert set().union(*prefills.values()) == set(NAMES)
    assert hit_rate(free) == pytest.approx(28 / 36, abs=0.03)
