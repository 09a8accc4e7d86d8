"""Sensitivity: the value at which a choice flips is found, and one that never flips is said to stand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from inlay.planner.report.sensitivity import Assumption, swing_table, swings

TRIP = Assumption(name="round trip", value=60e-6, low=10e-6, high=500e-6, unit="us", scale=1e6)
POWER = Assumption(name="power", value=1.0, low=0.8, high=1.2, unit="kW")


def gain(changed: Mapping[str, float]) -> float:
    """1.3 as assumed; equal at a round trip of 200 us; the power hardly matters."""
    trip, power = changed.get("round trip", 60e-6), changed.get("power", 1.0)
    return (1.0 + 0.3 * (200e-6 - trip) / 140e-6) / power**0.1


def test_the_flip_is_where_both_choices_are_equal() -> None:
    trip, power = swings([POWER, TRIP], gain)
    assert trip.assumption is TRIP
    assert trip.flip == pytest.approx(200e-6, rel=1e-6)
    assert power.flip is None
    assert trip.at_value == pytest.approx(1.3)
    assert trip.at_low > trip.at_value > trip.at_high


def test_the_nearest_of_several_flips_is_told() -> None:
    both = swings([Assumption(name="x", value=0.0, low=-1.0, high=1.0)], lambda changed: _hill(changed.get("x", 0.0)))
    assert both[0].flip == pytest.approx(-0.3, abs=1e-6)


def _hill(x: float) -> float:
    return 1.2 if -0.3 <= x <= 0.6 else 0.8


def test_a_jump_between_steps_is_found_and_a_lost_choice_can_win_too() -> None:
    found = swings(
        [Assumption(name="x", value=0.0, low=0.0, high=1.0)], lambda changed: 2.0 if changed.get("x", 0.0) > 0.41 else 0.5
    )
    assert found[0].flip == pytest.approx(0.41, abs=1e-6)


def test_the_table_has_units_and_says_where_it_flips() -> None:
    table = swing_table(swings([TRIP, POWER], gain), title="Sensitivity", gain="gain per kW")
    assert table.rows[0][:3] == ("round trip", "60 us", "10 us to 500 us")
    assert table.rows[0][-1] == "at 200 us"
    assert table.rows[1][-1] == "stands"
    assert table.note.startswith("gain per kW: 1.30x")
