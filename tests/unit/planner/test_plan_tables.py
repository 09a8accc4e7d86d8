"""Shifts, break-even prices, costs and charts of plans are what can be worked out by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from inlay.cost.ownership import PriceList
from inlay.hardware.catalogue import read_catalogue
from inlay.planner.report.break_even import break_even, break_even_table
from inlay.planner.report.frontiers import MeasuredVertex, charts
from inlay.planner.report.ownership import doubts_of, ownership_table
from inlay.planner.report.shifts import losses, said, shifts, speed_shifts
from inlay.planner.report.wording import configuration, performance

sys.path.insert(0, str(Path(__file__).parent))
import plan_world as world

PRICES = PriceList(catalogue=read_catalogue())
OURS = ((100.0, 900.0), (300.0, 600.0), (500.0, 200.0))
THEIRS = ((100.0, 1000.0), (250.0, 400.0), (400.0, 100.0))


def test_a_shift_compares_what_each_frontier_offers_at_that_speed() -> None:
    assert [shift.ratio for shift in shifts(OURS, THEIRS, [100, 200, 350, 450, 600])] == [0.9, 1.5, 2.0, math.inf, None]
    assert [shift.ratio for shift in speed_shifts(OURS, THEIRS, [950, 400, 150])] == [0.0, 1.2, 500 / 250]


def test_the_region_of_loss_is_exact() -> None:
    assert losses(OURS, THEIRS) == ((0.0, 100.0),)
    assert losses(OURS, ((600.0, 10.0),)) == ((500.0, 600.0),)
    assert losses(OURS, OURS) == ()
    assert [said(value) for value in (None, math.inf, 0.0, 1.234)] == ["-", "only here", "cannot", "1.23x"]


def test_at_the_break_even_price_a_token_costs_as_much_as_without_the_chip() -> None:
    alone = world.plan(speed=300, rate=500.0, chips={"b200": 1}, dollars=2.07)
    both = world.plan(speed=320, rate=1500.0, chips={"b200": 1, "corsair": 2})
    found = break_even("corsair", using=[both], without=[alone], prices=PRICES, interactivity=300)
    assert found.price is not None
    priced = PriceList(catalogue=PRICES.catalogue, stated={"dmatrix_corsair": found.price})
    hour = priced.fleet(both.chips).total
    assert hour is not None
    assert hour / both.throughput == pytest.approx(2.07 / 500.0)
    assert "below $" in break_even_table([found]).rows[0][-1]


def test_a_chip_that_gains_nothing_never_pays_and_an_unreached_speed_has_no_price() -> None:
    alone = world.plan(speed=300, rate=500.0, chips={"b200": 1}, dollars=2.07)
    both = world.plan(speed=320, rate=501.0, chips={"b200": 1, "corsair": 2})
    poor = break_even("corsair", using=[both], without=[alone], prices=PRICES, interactivity=300)
    assert poor.price is not None and poor.price < 0
    assert "never" in break_even_table([poor]).rows[0][-1]
    assert break_even("corsair", using=[both], without=[alone], prices=PRICES, interactivity=310).price is None


def test_the_cost_table_adds_up_and_an_unpriced_chip_is_free_not_zero() -> None:
    priced = ownership_table(world.plan(speed=100, rate=1000.0, chips={"b200": 4}, dollars=4 * 2.07), PRICES)
    hardware, power, space, total = (float(cell) for cell in priced.rows[-1][3:7])
    assert total == pytest.approx(8.28)
    assert hardware + power + space == pytest.approx(total, abs=0.02)
    assert "$2.300 a million output tokens" in priced.note
    assert "6.84 J" in priced.note
    mixed = world.plan(speed=100, rate=1000.0, chips={"b200": 4, "corsair": 2})
    free = ownership_table(mixed, PRICES)
    assert free.rows[1][3] == "free" and free.rows[-1][6:] == ("free", "-")
    assert float(free.rows[-1][4]) == pytest.approx((4 * 1.71 + 2 * 0.9) * 0.09, abs=0.005)
    assert "No price of corsair" in free.note
    assert any("0.9 kW" in doubt for doubt in doubts_of(mixed, PRICES))


def test_charts_leave_unpriced_plans_off_the_dollar_axis_and_say_so() -> None:
    alone = world.plan(speed=300, rate=500.0, chips={"b200": 1}, dollars=2.07, kilowatts=1.71)
    both = world.plan(speed=320, rate=1500.0, chips={"b200": 1, "corsair": 2}, kilowatts=3.5)
    points = [MeasuredVertex(chip="b200", interactivity=250.0, per_chip=600.0, configuration="tp 1, c4", source="a run")]
    found = charts(
        lambda axis: [("b200 alone", "baseline", [alone]), ("with corsair", "forced", [both])],
        points=points,
        kilowatts={"b200": 1.71},
        dollars={"b200": 2.07},
    )
    chip, target, kilowatt, dollar = found
    assert target.traces[1].vertices[0].y == pytest.approx(1500.0)
    assert chip.traces[1].vertices[0].y == pytest.approx(500.0)
    assert [len(trace.vertices) for trace in chip.traces] == [1, 1, 1]
    assert kilowatt.traces[2].vertices[0].y == pytest.approx(600 / 1.71)
    assert [len(trace.vertices) for trace in dollar.traces] == [1, 0, 1]
    assert "corsair" in dollar.note
    assert chip.traces[0].vertices[0].low == pytest.approx(0.9 * 500)
    assert {trace.vertices[0].grade for trace in chip.traces} == {"calibrated", "modelled", "measured"}


def test_a_plan_is_said_with_its_parts_its_band_and_its_grade() -> None:
    both = world.plan(speed=320, rate=1500.0, chips={"b200": 1, "corsair": 2})
    assert configuration(both).startswith("draft apart: 1 b200 for serving (tp 1, vllm, native, batch 8")
    assert "6 drafts a round apart, round trip 60 us, each taken with 0.80 (stated)" in configuration(both)
    assert performance(both).startswith("1,500 output tokens/s (1,350 to 1,650) at 320 tokens/s per user")
    assert performance(both).endswith("modelled")
