"""What one more card of a kind adds, and what one less costs: the best mix of the fleet again, with another count."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from inlay.cost.ownership import PriceList
from inlay.hardware import FleetChips
from inlay.planner.candidates import KnownSteps
from inlay.planner.question import Question
from inlay.planner.report.document import Table
from inlay.planner.splits import mixed


def worth_table(question: Question, known: KnownSteps, *, prices: PriceList, bandwidth: float) -> Table | None:
    """Output tokens a second by kind of chip, and what a card more is worth an hour at the present price of a token. None where
    no mix keeps what is asked."""
    allowed = question.allowed(prices.catalogue)

    def most(fleet: tuple[FleetChips, ...]) -> tuple[float, Mapping[str, int]]:
        if not fleet:
            return 0.0, {}
        asked = msgspec.structs.replace(question, fleet=fleet, without=())
        found = mixed(asked, known, catalogue=prices.catalogue, prices=prices, bandwidth=bandwidth)
        if found is None:
            return 0.0, {}
        used: dict[str, int] = {}
        for item, count in found[0]:
            for chip, chips in item.chips.items():
                used[chip] = used.get(chip, 0) + count * chips
        return found[1].throughput, used

    now, used = most(allowed)
    if not now:
        return None
    hour = prices.fleet(dict(used)).total
    rows = []
    for item in allowed:
        more, less = (most(_with(allowed, item, item.count + step))[0] for step in (1, -1))
        worth = "its fleet has no price" if hour is None else f"${hour * (more - now) / now:,.2f}"
        rows.append(
            (item.chip, f"{item.count}", f"{used.get(item.chip, 0)}", f"{more - now:+,.0f}", f"{less - now:+,.0f}", worth)
        )
    return Table(
        title="One card more, one card less (modelled)",
        head=("chip", "there are", "in use", "one more", "one less", "one more is worth an hour"),
        rows=tuple(rows),
        note=f"Output tokens a second over the {now:,.0f} of the best mix, without drafts; a card is worth what its tokens "
        "cost now. Groups have 1, 2, 4 or 8 cards: a single card more may fit no group.",
    )


def _with(fleet: tuple[FleetChips, ...], item: FleetChips, count: int) -> tuple[FleetChips, ...]:
    """The fleet with so many of one of its chips."""
    changed = tuple(msgspec.structs.replace(other, count=count) if other is item else other for other in fleet)
    return tuple(other for other in changed if other.count)
