"""What an answer assumes and how far each of it may be wrong: drafts, the step's own error, power, prices, energy.

`assumptions` lists them with the ranges that are tried; `moved` gives the question and the prices with some of them changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from inlay.cost.ownership import PriceList
from inlay.planner.drafting import DraftingAssumptions, DraftModel
from inlay.planner.plans import Plan
from inlay.planner.question import Question
from inlay.planner.report.sensitivity import Assumption

DRAFTING = {  # by name: the field, and the range that is tried, in seconds or as a share
    "draft token out of SRAM": ("sram_overhead", 10e-6, 500e-6),
    "draft token elsewhere": ("graph_overhead", 0.1e-3, 1e-3),
    "round trip": ("round_trip", 5e-6, 2e-3),
    "share of SRAM bandwidth": ("sram_share", 0.1, 0.9),
}
ACCEPTANCES = {"acceptance apart": "draft", "acceptance on the target's chips": "own_draft"}
STEP = "the target's step"
ENERGY = "energy"
POWER, PRICE = ", all-in", ", an hour"


def assumptions(question: Question, plan: Plan, prices: PriceList) -> tuple[Assumption, ...]:
    """Those that decide between a recommended plan and others, on the axis that was asked for."""
    found = [Assumption(name=STEP, value=1.0, low=min(1.0, 1.0 / plan.high), high=max(1.0, 1.0 / plan.low), unit="x")]
    for name, field in ACCEPTANCES.items():
        draft: DraftModel | None = getattr(question, field)
        if draft is not None:
            found.append(Assumption(name=name, value=draft.acceptance, low=0.5, high=0.95))
    if question.draft is not None or question.own_draft is not None:
        for name, (field, low, high) in DRAFTING.items():
            value = getattr(question.drafting, field)
            unit, scale = ("", 1.0) if field == "sram_share" else ("us", 1e6)
            low, high = min(low, value), max(high, value)
            found.append(Assumption(name=name, value=value, low=low, high=high, unit=unit, scale=scale))
    for chip in plan.chips:
        cost = prices.chip(chip)
        if question.axis == "kilowatt":
            kw = cost.kilowatts
            found.append(Assumption(name=f"{chip}{POWER}", value=kw, low=0.6 * kw, high=1.6 * kw, unit="kW"))
        if question.axis == "dollar" and cost.hour is not None:
            hour = cost.hour.total
            found.append(Assumption(name=f"{chip}{PRICE}", value=hour, low=0.5 * hour, high=2.0 * hour, unit="$"))
    if question.axis == "dollar":
        found.append(Assumption(name=ENERGY, value=prices.terms.energy, low=0.04, high=0.20, unit="$ a kWh"))
    return tuple(found)


def moved(question: Question, prices: PriceList, changed: Mapping[str, float]) -> tuple[Question, PriceList]:
    """Both with other values of the assumptions of these names."""
    drafting = {DRAFTING[name][0]: value for name, value in changed.items() if name in DRAFTING}
    given: dict[str, DraftModel | DraftingAssumptions | float] = {
        "drafting": msgspec.structs.replace(question.drafting, **drafting)
    }
    for name, field in ACCEPTANCES.items():
        if name in changed:
            given[field] = msgspec.structs.replace(getattr(question, field), acceptance=changed[name])
    if STEP in changed:
        given["step_factor"] = changed[STEP]
    return msgspec.structs.replace(question, **given), _priced(prices, changed)


def _priced(prices: PriceList, changed: Mapping[str, float]) -> PriceList:
    powers, hours = dict(prices.stated_kilowatts), dict(prices.stated_hours)
    once, owned = dict(prices.stated), set(prices.owned)
    for name, value in changed.items():
        chip = (
            prices.catalogue.sheet(name.removesuffix(POWER).removesuffix(PRICE)).name if name.endswith((POWER, PRICE)) else ""
        )
        if name.endswith(POWER):
            powers[chip] = value
        elif name.endswith(PRICE):
            hours[chip] = value
            once.pop(chip, None)
            owned.discard(chip)
    energy = changed.get(ENERGY, prices.terms.energy)
    return replace(
        prices,
        terms=replace(prices.terms, energy=energy),
        stated=once,
        stated_hours=hours,
        stated_kilowatts=powers,
        owned=frozenset(owned),
    )
