"""The cost of a plan as a table: by chip, split into hardware, power and space, then a million tokens and a token's energy."""

from __future__ import annotations

from inlay.cost.money import HourlyCost, cost_per_million, hourly_cost
from inlay.cost.ownership import PriceList
from inlay.planner.plans import Plan
from inlay.planner.report.document import Table

HEAD = ("chip", "count", "kW all-in", "hardware $/h", "power $/h", "space $/h", "total $/h", "hardware share")


def ownership_table(plan: Plan, prices: PriceList) -> Table:
    """Rows by chip and of all; the note has dollars a million tokens, joules a token and the convention. All modelled."""
    rows = []
    for chip, count in plan.chips.items():
        if not count:
            continue
        cost = prices.chip(chip)
        name = f"{chip} (owned)" if cost.is_owned else chip
        rows.append((name, str(count), f"{count * cost.kilowatts:.2f}", *_cells(cost.hour, count, cost.running)))
    fleet = prices.fleet(plan.chips)
    total = fleet.hour if not fleet.unpriced else None
    running = hourly_cost(price=0.0, kilowatts=fleet.kilowatts, terms=prices.terms)
    rows.append(("all", str(sum(plan.chips.values())), f"{fleet.kilowatts:.2f}", *_cells(total, 1, running)))
    return Table(title="Cost of ownership (modelled)", head=HEAD, rows=tuple(rows), note=_note(plan, prices))


def doubts_of(plan: Plan, prices: PriceList) -> tuple[str, ...]:
    """Assumed values behind the cost, each once."""
    return tuple(dict.fromkeys(doubt for chip, count in plan.chips.items() if count for doubt in prices.chip(chip).doubts))


def sources_of(plan: Plan, prices: PriceList) -> tuple[str, ...]:
    """Whose prices and power, by chip."""
    return tuple(f"{chip}: {'; '.join(prices.chip(chip).sources)}" for chip, count in plan.chips.items() if count)


def _cells(hour: HourlyCost | None, count: int, running: HourlyCost) -> tuple[str, ...]:
    """A chip without a price shows its power and space; its hardware is the free variable."""
    if hour is None:
        return ("free", f"{count * running.power:.2f}", f"{count * running.space:.2f}", "free", "-")
    parts = (hour.hardware, hour.power, hour.space, hour.total)
    return (*(f"{count * part:.2f}" for part in parts), f"{hour.hardware_share:.0%}")


def _note(plan: Plan, prices: PriceList) -> str:
    terms, fleet = prices.terms, prices.fleet(plan.chips)
    joules = 1e3 * fleet.kilowatts / plan.throughput
    convention = (
        f"Prices: {prices.convention}; energy ${terms.energy:g} a kWh, space ${terms.space:g} a kW and month, written off in "
        f"{terms.years:g} years."
    )
    energy = f"{joules:.2f} J of provisioned power an output token."
    if fleet.total is None:
        return f"No price of {', '.join(fleet.unpriced)}: see the break-even. {energy} {convention}"
    per_million = cost_per_million(dollars_an_hour=fleet.total, tokens_a_second=plan.throughput)
    share = fleet.hour.hardware_share
    decides = "the price of hardware decides more than that of energy" if share > 0.5 else "power and space decide"
    return f"${per_million:.3f} a million output tokens; hardware is {share:.0%} of the hour: {decides}. {energy} {convention}"
