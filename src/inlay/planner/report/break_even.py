"""Up to which list price a chip without a price pays, at each interactivity: dollars a token as without it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inlay.cost.ownership import PriceList
from inlay.planner.plans import Plan
from inlay.planner.report.document import Table


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """At `interactivity` tokens a second of a user: the list price of `chip`, None where no plan with it, or none without it,
    is that fast. At or below zero it does not pay as a gift."""

    chip: str
    interactivity: float
    price: float | None
    plan: Plan | None = None


def break_even(
    chip: str, *, using: Sequence[Plan], without: Sequence[Plan], prices: PriceList, interactivity: float
) -> BreakEven:
    """The highest price over the plans that use it: what they may cost an hour to give tokens at the price of the cheapest plan
    without it, less their other chips, shared by its cards."""
    nothing = BreakEven(chip=chip, interactivity=interactivity, price=None)
    rivals = [
        plan.dollars_an_hour / plan.throughput
        for plan in without
        if plan.dollars_an_hour is not None and plan.interactivity >= interactivity and not plan.chips.get(chip)
    ]
    if not rivals:
        return nothing
    best = nothing
    for plan in using:
        count = plan.chips.get(chip, 0)
        others = {name: number for name, number in plan.chips.items() if name != chip}
        rest = prices.fleet(others).total
        if not count or rest is None or plan.interactivity < interactivity:
            continue
        spare = (min(rivals) * plan.throughput - rest) / count
        price = prices.break_even(chip, spare)
        if best.price is None or price > best.price:
            best = BreakEven(chip=chip, interactivity=interactivity, price=price, plan=plan)
    return best


def break_even_table(found: Sequence[BreakEven]) -> Table:
    """One row a speed."""
    rows = []
    for item in found:
        if item.price is None:
            told = "no plan to compare"
        elif item.price <= 0:
            told = "never: its power and space cost more than it saves"
        else:
            told = f"below ${item.price:,.0f}"
        rows.append((f"{item.interactivity:.0f} tokens/s/user", item.chip, told))
    return Table(
        title="Break-even price of a chip without one (modelled)",
        head=("at", "chip", "it pays"),
        rows=tuple(rows),
        note="List price, once, of one chip, its power and space beside, at which a token costs as much as without the chip.",
    )
