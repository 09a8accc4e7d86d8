"""Dollars and joules: what a chip costs an hour, what a million tokens cost, what a node draws. Closed forms, all modelled.

Two conventions: total cost of ownership from list price, power and space; and the one of a published table of devices
(Asgar, Nguyen, Katti, "Efficient and Scalable Agentic AI with Heterogeneous Systems", arXiv 2507.19635, July 2025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

HOURS_A_YEAR = 8766.0  # with leap years; the published table has 8760
HOURS_A_MONTH = 730.0


@dataclass(frozen=True)
class Ownership:
    """Assumptions of ownership. `network` is what networking and cabling add to the list price, `residual` the share of it
    left at the end; `energy` is dollars a kWh, `space` dollars a kW and month; `usage_effectiveness` (PUE) is 1 where the
    power given already holds it. Ranges in use: energy 0.06 to 0.12, space 150 to 250 (price guides 2025-26)."""

    years: float = 4.0
    network: float = 0.12
    residual: float = 0.0
    utilisation: float = 1.0
    energy: float = 0.09
    space: float = 200.0
    usage_effectiveness: float = 1.0


@dataclass(frozen=True)
class HourlyCost:
    """Dollars an hour of one chip."""

    hardware: float
    power: float
    space: float

    @property
    def total(self) -> float:
        """All three."""
        return self.hardware + self.power + self.space

    @property
    def hardware_share(self) -> float:
        """Tells whether the price of the chip or of energy decides."""
        return self.hardware / self.total if self.total else 0.0


def hourly_cost(*, price: float, kilowatts: float, terms: Ownership) -> HourlyCost:
    """One chip: its price written off in a straight line (0 for one that is owned and paid), its power and its space."""
    hours = HOURS_A_YEAR * terms.years * terms.utilisation
    return HourlyCost(
        hardware=price * (1.0 + terms.network) * (1.0 - terms.residual) / hours,
        power=kilowatts * terms.energy * terms.usage_effectiveness,
        space=kilowatts * terms.space / HOURS_A_MONTH,
    )


def cost_per_million(*, dollars_an_hour: float, tokens_a_second: float) -> float:
    """Dollars for a million tokens of the kind whose rate is given; infinite at no rate."""
    return 1e6 * dollars_an_hour / (3600.0 * tokens_a_second) if tokens_a_second > 0 else math.inf


def break_even_price(*, dollars_an_hour: float, kilowatts: float, terms: Ownership) -> float:
    """The list price at which a chip costs `dollars_an_hour`: below it, it pays. Negative where its power alone costs more."""
    running = hourly_cost(price=0.0, kilowatts=kilowatts, terms=terms).total
    one = hourly_cost(price=1.0, kilowatts=0.0, terms=terms).hardware
    return (dollars_an_hour - running) / one


@dataclass(frozen=True)
class NodePower:
    """What a node of chips draws beside them: watts of fans at full speed (they grow with the cube of the load), of all
    else, and of its share of the network. Constants for 8 chips, InferenceX power model, August 2026."""

    fixed: float
    network: float
    fans: float = 0.0
    usage_effectiveness: float = 1.3


NVIDIA_NODE = NodePower(fixed=1271.6, network=405.0)
AMD_NODE = NodePower(fixed=911.6, network=281.0)
# Load of the supply and the share of its input that it gives on.
SUPPLY = ((0.05, 0.886), (0.5, 0.964), (1.0, 0.956))


def chip_watts(*, idle: float, full: float, compute_share: float, bandwidth_share: float) -> float:
    """A chip at work: idle, and the rest by how much of its compute or its bandwidth it uses, whichever is more."""
    return idle + (full - idle) * min(1.0, max(compute_share, bandwidth_share, 0.0))


def node_watts(chips: Sequence[float], *, node: NodePower, load: float) -> float:
    """A node of chips that draw so many watts, at the wall and with cooling; `load` is the share of full load, 0 to 1."""
    inside = sum(chips) + node.fixed + node.network + node.fans * load**3
    return inside / supply_efficiency(load) * node.usage_effectiveness


def supply_efficiency(load: float) -> float:
    """Between the points of SUPPLY in straight lines, beyond them as at the nearest."""
    low_load, low = SUPPLY[0]
    for high_load, high in SUPPLY[1:]:
        if load <= high_load:
            share = min(1.0, max(0.0, (load - low_load) / (high_load - low_load)))
            return low + share * (high - low)
        low_load, low = high_load, high
    return low


def published_operating_cost(
    *, price: float, kilowatts: float, rate: float = 0.08, years: int = 4, energy: float = 0.40
) -> float:
    """Dollars an hour by the convention that the published table fits: compound interest on the whole price, and full power.

    It has no repayment of the price, and no plain annuity gives its figures; it is not how we count.
    """
    interest = price * ((1.0 + rate / 12) ** (12 * years) - 1.0)
    return interest / (years * 8760) + kilowatts * energy


def published_hourly_cost(*, price: float, operating: float, years: int = 4) -> float:
    """All in: the price in a straight line, and the operating cost."""
    return price / (years * 8760) + operating
