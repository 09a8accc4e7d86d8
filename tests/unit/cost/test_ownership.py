"""What an hour of a chip costs: one convention at a time, split, with what is doubtful said."""

from __future__ import annotations

import dataclasses

import pytest

from inlay.cost.money import Ownership
from inlay.cost.ownership import PriceList, hardware_price, split
from inlay.errors import ClusterError, InputError
from inlay.hardware.catalogue import read_catalogue

CATALOGUE = read_catalogue()


def test_an_hourly_price_is_split_and_the_parts_are_the_price() -> None:
    cost = PriceList(catalogue=CATALOGUE, convention="neocloud").chip("b200")
    assert cost.hour is not None
    assert cost.hour.total == pytest.approx(2.07)
    assert cost.hour.power == pytest.approx(1.71 * 0.09)
    assert cost.hour.space == pytest.approx(1.71 * 200 / 730)
    assert 0.6 < cost.hour.hardware_share < 0.8
    assert any("2026-08" in source for source in cost.sources)


def test_each_convention_has_its_own_price_and_no_other_set_fills_its_gaps() -> None:
    hours = {}
    for name in ("hyperscaler", "neocloud", "rental"):
        hour = PriceList(catalogue=CATALOGUE, convention=name).chip("h200").hour
        assert hour is not None
        hours[name] = round(hour.total, 2)
    assert hours == {"hyperscaler": 1.22, "neocloud": 1.59, "rental": 2.05}
    # B200 has dollars an hour, and no list price: a purchase must not borrow from them.
    assert PriceList(catalogue=CATALOGUE, convention="purchase").chip("b200").hour is None


def test_a_chip_without_a_price_makes_the_fleet_unpriced_and_names_it() -> None:
    prices = PriceList(catalogue=CATALOGUE)
    fleet = prices.fleet({"b200": 8, "corsair": 4})
    assert fleet.total is None
    assert fleet.unpriced == ("corsair",)
    assert fleet.hour.total == pytest.approx(8 * 2.07)
    assert fleet.kilowatts == pytest.approx(8 * 1.71 + 4 * 0.9)


def test_a_stated_price_is_used_and_named_as_the_users_own() -> None:
    prices = PriceList(catalogue=CATALOGUE, stated={"dmatrix_corsair": 9000.0})
    cost = prices.chip("corsair")
    assert cost.hour is not None
    assert cost.hour.hardware == pytest.approx(9000 * 1.12 / (8766 * 4))
    assert any("stated by the user" in source for source in cost.sources)
    assert prices.fleet({"corsair": 2}).total == pytest.approx(2 * cost.hour.total)


def test_the_break_even_price_is_the_price_that_costs_that_much() -> None:
    prices = PriceList(catalogue=CATALOGUE)
    price = prices.break_even("corsair", 0.8)
    again = PriceList(catalogue=CATALOGUE, stated={"dmatrix_corsair": price}).chip("corsair")
    assert again.hour is not None
    assert again.hour.total == pytest.approx(0.8)
    assert prices.break_even("corsair", 0.1) < 0


def test_an_owned_chip_costs_its_power_and_space_alone() -> None:
    cost = PriceList(catalogue=CATALOGUE, owned=frozenset({"h100_sxm"})).chip("h100")
    assert cost.hour is not None
    assert cost.hour.hardware == 0.0
    assert cost.hour.total == cost.running.total > 0


def test_assumed_values_are_said() -> None:
    assert any("assumption" in doubt for doubt in PriceList(catalogue=CATALOGUE).chip("corsair").doubts)
    stated = PriceList(catalogue=CATALOGUE, stated_kilowatts={"dmatrix_corsair": 1.03}).chip("corsair")
    assert stated.kilowatts == 1.03
    assert not stated.doubts


def test_the_papers_convention_gives_the_papers_hourly_cost() -> None:
    """B200 in the published table: 40,000 dollars and 1.0 kW give 1.972 an hour."""
    sheet = CATALOGUE.sheet("b200")
    assert sheet.power is not None
    one = dataclasses.replace(PriceList(catalogue=CATALOGUE, convention="paper"), stated={"b200_sxm": 40_000.0})
    hour = one.chip("b200").hour
    assert hour is not None
    kilowatts = sheet.power.value / 1e3
    assert hour.total == pytest.approx(1.972 + (kilowatts - 1.0) * 0.40, abs=0.01)


def test_a_price_below_power_and_space_has_no_hardware_in_it() -> None:
    running = PriceList(catalogue=CATALOGUE).chip("b200").running
    parts = split(0.5 * running.total, running)
    assert parts.hardware == 0.0
    assert parts.total == pytest.approx(0.5 * running.total)


def test_the_price_behind_an_hour_is_found_again() -> None:
    prices = PriceList(catalogue=CATALOGUE, stated={"dmatrix_corsair": 7500.0})
    hour = prices.chip("corsair").hour
    assert hour is not None
    assert hardware_price(hour, Ownership()) == pytest.approx(7500.0)


def test_an_unknown_convention_or_chip_is_named() -> None:
    with pytest.raises(InputError, match="'spot', expected one of hyperscaler"):
        PriceList(catalogue=CATALOGUE, convention="spot")
    with pytest.raises(ClusterError) as caught:
        PriceList(catalogue=CATALOGUE).chip("b20")
    assert "b200" in (caught.value.hint or "")
    with pytest.raises(InputError, match="expected one"):
        PriceList(catalogue=CATALOGUE, stated={"x": 1.0}, stated_hours={"x": 1.0})
