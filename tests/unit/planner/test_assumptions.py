"""Assumptions of an answer: each is moved alone, on the side that it belongs to, and those of another axis are left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from inlay.cost.ownership import PriceList
from inlay.hardware.catalogue import read_catalogue
from inlay.planner import Question, assumptions, moved, parse_draft, parse_fleet, parse_load

sys.path.insert(0, str(Path(__file__).parent))
import plan_world as world

PRICES = PriceList(catalogue=read_catalogue(), stated={"dmatrix_corsair": 9000.0})
PLAN = world.plan(speed=300, rate=1000.0, chips={"b200": 1, "corsair": 2})


def asked(axis: str) -> Question:
    return Question(
        model="gpt-oss-120b",
        fleet=parse_fleet("b200:1,corsair:2"),
        load=parse_load("isl=8192,osl=1024"),
        draft=parse_draft("1.6b", acceptance=0.8),
        axis=axis,
    )


def test_power_is_tried_where_power_decides_and_prices_where_money_does() -> None:
    power = {item.name for item in assumptions(asked("kilowatt"), PLAN, PRICES)}
    money = {item.name for item in assumptions(asked("dollar"), PLAN, PRICES)}
    assert {"b200, all-in", "corsair, all-in", "acceptance apart", "the target's step"} <= power
    assert {"b200, an hour", "corsair, an hour", "energy"} <= money
    assert not [name for name in power if "hour" in name or name == "energy"]
    assert "acceptance on the target's chips" not in power


def test_every_assumption_that_is_listed_moves_something_and_only_itself() -> None:
    for axis in ("kilowatt", "dollar"):
        question = asked(axis)
        for item in assumptions(question, PLAN, PRICES):
            changed, priced = moved(question, PRICES, {item.name: item.high})
            assert (changed, priced) != (question, PRICES), item.name
            assert item.low <= item.value <= item.high
    same, prices = moved(question, PRICES, {})
    assert (same, prices) == (question, PRICES)


def test_a_moved_price_and_power_are_what_a_chip_then_costs() -> None:
    _, priced = moved(asked("dollar"), PRICES, {"corsair, an hour": 2.5, "corsair, all-in": 1.2})
    cost = priced.chip("corsair")
    assert cost.hour is not None
    assert cost.hour.total == pytest.approx(2.5)
    assert cost.kilowatts == 1.2
