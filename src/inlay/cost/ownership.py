"""What an hour of a chip costs under one named convention, split into hardware, power and space, with source, date and doubts.

A convention is one dated set of prices and is never mixed with another: a chip that the set does not price is unpriced, a free
variable, and those who ask get its break-even price. A price that the user states is the user's own and is named as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inlay.cost.money import (
    HOURS_A_MONTH,
    HourlyCost,
    Ownership,
    break_even_price,
    hourly_cost,
    published_hourly_cost,
    published_operating_cost,
)
from inlay.errors import InputError
from inlay.hardware.catalogue import Catalogue, DataSheet, Figure

HOURLY = {"hyperscaler": "hour_hyperscaler", "neocloud": "hour_neocloud", "rental": "hour_rental", "market": "hour_market"}
CONVENTIONS = (*HOURLY, "purchase", "paper")
PROVISIONED = 1.71  # all-in watts to the chip's own, of B200: stands in where a sheet has the chip's own power only


@dataclass(frozen=True, kw_only=True)
class ChipCost:
    """One chip. `hour` is None where the convention has no price of it; `running` is what it costs without its hardware, which
    an owned chip costs in all. `kilowatts` is all-in: its share of what the data centre provisions. `doubts` are the values
    that are assumptions, in words."""

    chip: str
    convention: str
    hour: HourlyCost | None
    running: HourlyCost
    kilowatts: float
    is_owned: bool
    sources: tuple[str, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FleetCost:
    """Dollars an hour of several chips: the sum of those with a price, and which have none."""

    hour: HourlyCost
    kilowatts: float
    unpriced: tuple[str, ...]

    @property
    def total(self) -> float | None:
        """None while a chip has no price."""
        return None if self.unpriced else self.hour.total


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """Prices of chips by one convention. `stated` are dollars once for a chip (`purchase`), `stated_hours` dollars an hour and
    `stated_kilowatts` all-in power that the user gives instead of the catalogue's; `owned` chips cost no hardware."""

    catalogue: Catalogue
    convention: str = "neocloud"
    terms: Ownership = field(default_factory=Ownership)
    stated: Mapping[str, float] = field(default_factory=dict)
    stated_hours: Mapping[str, float] = field(default_factory=dict)
    stated_kilowatts: Mapping[str, float] = field(default_factory=dict)
    owned: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise InputError(
                f"price convention is {self.convention!r}, expected one of {', '.join(CONVENTIONS)}",
                hint="hyperscaler, neocloud and rental are dollars an hour, purchase writes a list price off",
            )
        both = sorted(set(self.stated) & set(self.stated_hours))
        if both:
            once, hourly = self.stated[both[0]], self.stated_hours[both[0]]
            raise InputError(
                f"{both[0]} has a price of {once:g} and one an hour of {hourly:g}, expected one",
                hint="leave one out",
            )

    def chip(self, name: str) -> ChipCost:
        """The cost of one chip; ClusterError for an unknown one."""
        sheet = self.catalogue.sheet(name)
        kilowatts, power_source, doubts = self._kilowatts(sheet, name)
        running = hourly_cost(price=0.0, kilowatts=kilowatts, terms=self.terms)
        owned = sheet.name in self.owned
        hour: HourlyCost | None
        if owned:
            hour, told = running, ["hardware: owned, and paid"]
        elif sheet.name in self.stated:
            price = self.stated[sheet.name]
            hour, told = self._written_off(sheet, price, kilowatts), [f"price: ${price:,.0f}, as stated by the user"]
        elif sheet.name in self.stated_hours:
            price = self.stated_hours[sheet.name]
            hour, told = split(price, running), [f"price: ${price:.2f} an hour, as stated by the user"]
        else:
            hour, told, doubt = self._listed(sheet, name, running, kilowatts)
            doubts += doubt
        return ChipCost(
            chip=sheet.name,
            convention=self.convention,
            hour=hour,
            running=running,
            kilowatts=kilowatts,
            is_owned=owned,
            sources=(*told, power_source),
            doubts=tuple(doubts),
        )

    def fleet(self, chips: Mapping[str, int]) -> FleetCost:
        """The cost of so many chips of each name."""
        costs = {name: self.chip(name) for name, count in chips.items() if count}
        hours = [(chips[name], cost.hour) for name, cost in costs.items() if cost.hour is not None]
        return FleetCost(
            hour=HourlyCost(
                hardware=sum(count * hour.hardware for count, hour in hours),
                power=sum(count * hour.power for count, hour in hours),
                space=sum(count * hour.space for count, hour in hours),
            ),
            kilowatts=sum(chips[name] * cost.kilowatts for name, cost in costs.items()),
            unpriced=tuple(sorted(name for name, cost in costs.items() if cost.hour is None)),
        )

    def break_even(self, name: str, dollars_an_hour: float) -> float:
        """The list price, once, at which a chip costs `dollars_an_hour` all in. Below zero its power and space cost more."""
        return break_even_price(dollars_an_hour=dollars_an_hour, kilowatts=self.chip(name).kilowatts, terms=self.terms)

    def _kilowatts(self, sheet: DataSheet, name: str) -> tuple[float, str, list[str]]:
        if sheet.name in self.stated_kilowatts:
            stated = self.stated_kilowatts[sheet.name]
            return stated, f"power: {stated:g} kW all-in, as stated by the user", []
        provisioned = sheet.provisioned_power
        if provisioned is not None:
            doubt = [f"{name}: {provisioned.value / 1e3:g} kW all-in is an assumption"] if provisioned.is_assumption else []
            return provisioned.value / 1e3, f"power: {_cited(provisioned)}", doubt
        if sheet.power is None:
            raise InputError(
                f"chip {sheet.name!r} has no power in the catalogue, expected one", hint=f"--power {sheet.name}=KW"
            )
        own = PROVISIONED * sheet.power.value / 1e3
        doubt = [f"{name}: {own:.2f} kW all-in is an assumption, {PROVISIONED} x its own {sheet.power.value:.0f} W"]
        return own, f"power: {_cited(sheet.power)}, x {PROVISIONED}", doubt

    def _listed(
        self, sheet: DataSheet, chip: str, running: HourlyCost, kilowatts: float
    ) -> tuple[HourlyCost | None, list[str], list[str]]:
        """What the convention's own set says, and nothing of another set."""
        name = HOURLY.get(self.convention, "purchase")
        figure: Figure | None = getattr(sheet.prices, name)
        if figure is None:
            return None, [f"price: the {self.convention} set has none of {chip}: a free variable"], []
        doubt = [f"{chip}: its price is an assumption"] if figure.is_assumption else []
        if figure.low < figure.high:
            doubt.append(f"{chip}: ${figure.value:g} is the middle of ${figure.low:g} to ${figure.high:g}")
        hour = split(figure.value, running) if name != "purchase" else self._written_off(sheet, figure.value, kilowatts)
        return hour, [f"price: {_cited(figure)}"], doubt

    def _written_off(self, sheet: DataSheet, price: float, kilowatts: float) -> HourlyCost:
        if self.convention != "paper":
            return hourly_cost(price=price, kilowatts=kilowatts, terms=self.terms)
        own = kilowatts if sheet.power is None else sheet.power.value / 1e3
        operating = published_operating_cost(price=price, kilowatts=own)
        whole = published_hourly_cost(price=price, operating=operating)
        power = published_operating_cost(price=0.0, kilowatts=own)
        return HourlyCost(hardware=whole - power, power=power, space=0.0)


def split(dollars: float, running: HourlyCost) -> HourlyCost:
    """An hourly price as its parts: power and space as modelled, hardware (with all else of the owner) what is left of it.

    A price below power and space is all of it those two, in their proportion.
    """
    if dollars >= running.total:
        return HourlyCost(hardware=dollars - running.total, power=running.power, space=running.space)
    share = dollars / running.total
    return HourlyCost(hardware=0.0, power=share * running.power, space=share * running.space)


def hardware_price(hour: HourlyCost, terms: Ownership) -> float:
    """The list price whose write-off is the hardware part of an hour."""
    one = hourly_cost(price=1.0, kilowatts=0.0, terms=terms).hardware
    return hour.hardware / one


def energy_per_million(*, kilowatts: float, tokens_a_second: float) -> float:
    """Kilowatt-hours of provisioned power a million tokens; multiply by 3.6 for megajoules."""
    return kilowatts * 1e6 / (3600.0 * tokens_a_second)


def space_rate(terms: Ownership) -> float:
    """Dollars a kW and hour of space."""
    return terms.space / HOURS_A_MONTH


def _cited(figure: Figure) -> str:
    source = figure.source.split(";")[0].split(":")[0].strip()
    return f"{source}, {figure.date} ({figure.grade}, confidence {figure.confidence})"
