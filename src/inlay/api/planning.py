"""Plans: what runs where for a model, what it gives and costs, and what that rests on. Wiring only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from inlay.cost.money import Ownership
from inlay.cost.ownership import CONVENTIONS, PriceList
from inlay.cost.serving import Predictor
from inlay.hardware import FleetChips, load_cluster
from inlay.hardware.catalogue import Catalogue, read_catalogue
from inlay.models.facts import read_facts
from inlay.planner import (
    AXES,
    Answer,
    DraftingAssumptions,
    DraftModel,
    KnownSteps,
    Plan,
    Question,
    SteadyLoad,
    answer,
    assumptions,
    contest,
    curve_of,
    fleet_of,
    moved,
    parse_draft,
    parse_fleet,
    parse_load,
)
from inlay.planner.report import (
    Assumption,
    Report,
    Swing,
    compose,
    measured_vertices,
    mix_table,
    page,
    picture,
    rasterised,
    swings,
    text,
    worth_table,
)
from inlay.specs.slo import parse_budgets

__all__ = [
    "AXES",
    "CONVENTIONS",
    "DraftModel",
    "DraftingAssumptions",
    "Plan",
    "Planned",
    "Question",
    "SteadyLoad",
    "fleet_and_trip",
    "page",
    "parse_budgets",
    "parse_draft",
    "parse_fleet",
    "parse_load",
    "picture",
    "plan",
    "price_list",
    "rasterised",
    "text",
    "told",
]
SWING_STEPS, SWING_HALVINGS = 6, 8
LINK = 50e9
"""What carries KV where nothing else is said: one direction of 400 Gb/s."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, what was found, and the report of it."""

    question: Question
    answer: Answer
    report: Report


def price_list(
    fleet: Sequence[FleetChips],
    *,
    convention: str = "neocloud",
    prices: Mapping[str, float] = {},
    hours: Mapping[str, float] = {},
    kilowatts: Mapping[str, float] = {},
    terms: Ownership | None = None,
    catalogue: Catalogue | None = None,
) -> PriceList:
    """Prices of a fleet: what its file says of price, hour and power, over that what is given here (dollars once, dollars an
    hour, all-in kW, by chip). Raises ClusterError for an unknown chip, InputError for two prices of one."""
    found = catalogue or read_catalogue()

    def named(given: Mapping[str, float], stated: Mapping[str, float | None]) -> dict[str, float]:
        written = {found.sheet(chip).name: value for chip, value in stated.items() if value is not None}
        return written | {found.sheet(chip).name: value for chip, value in given.items()}

    once = named(prices, {item.chip: item.price for item in fleet if item.chip not in hours})
    hourly = named(hours, {item.chip: item.hour for item in fleet if item.chip not in prices})
    powers = {item.chip: None if item.power is None else item.power / 1e3 for item in fleet}
    return PriceList(
        catalogue=found,
        convention=convention,
        terms=terms or Ownership(),
        stated=once,
        stated_hours=hourly,
        stated_kilowatts=named(kilowatts, powers),
        owned=frozenset(found.sheet(item.chip).name for item in fleet if item.held == "owned"),
    )


def fleet_and_trip(cluster: str | Path) -> tuple[tuple[FleetChips, ...], float | None]:
    """The chips that a cluster file offers, and twice the longest latency of a link between two of them (None: no link)."""
    found = load_cluster(cluster)
    known = {*found.fleet}
    trips = [2.0 * link.latency for link in found.links if set(link.ends) <= known]
    return fleet_of(found), max(trips, default=None)


def plan(
    question: Question,
    *,
    prices: PriceList,
    sensitivity: bool = True,
    link: float = LINK,
    progress: Callable[[str], None] = lambda text: None,
) -> Planned:
    """Search, then report. `sensitivity` tries each assumption of drafts against the best other way; `link` is how many bytes a
    second of KV go from prefill to decode. Raises InputError,
    ClusterError, ModelError."""
    facts, predictor = read_facts(question.model), Predictor.shipped()
    known: KnownSteps = {}
    found = answer(
        question, facts, catalogue=prices.catalogue, predictor=predictor, prices=prices, known=known, progress=progress
    )

    def contested(changed: Mapping[str, float]) -> dict[str, float]:
        asked, priced = moved(question, prices, changed)
        return contest(asked, facts, catalogue=prices.catalogue, predictor=predictor, prices=priced, known=known)

    found_swings: tuple[Swing, ...] = ()
    rival = ""
    if sensitivity and found.recommended is not None:
        ours = curve_of(found.recommended)
        rival = rival_of(ours, contested({}))
        if rival:
            assumed = assumptions(question, found.recommended, prices)
            found_swings = _swings(assumed, ours, rival, contested, progress)
    progress("the report")
    points = measured_vertices(question, prices.catalogue, facts.name)
    beside = [make(question, known, prices=prices, bandwidth=link) for make in (mix_table, worth_table)]
    report = compose(
        question,
        found,
        prices=prices,
        points=points,
        swings=found_swings,
        rival=rival,
        beside=[item for item in beside if item],
    )
    return Planned(question=question, answer=found, report=report)


def told(report: Report) -> object:
    """A report as plain data."""
    return msgspec.to_builtins(report)


def rival_of(ours: str, values: Mapping[str, float]) -> str:
    """The best curve that is not ours and keeps everything; empty where there is none."""
    others = {name: value for name, value in values.items() if name not in (ours, "every plan") and value > 0}
    return max(others, key=lambda name: others[name], default="")


def _swings(
    assumed: Sequence[Assumption],
    ours: str,
    rival: str,
    contested: Callable[[Mapping[str, float]], dict[str, float]],
    progress: Callable[[str], None],
) -> tuple[Swing, ...]:
    """The gain of one curve over another, with each assumption moved."""
    names = [item.name for item in assumed]

    def gain(changed: Mapping[str, float]) -> float:
        for name in changed:
            progress(f"sensitivity: {names.index(name) + 1} of {len(names)}")
        values = contested(changed)
        theirs = values.get(rival, 0.0)
        return values.get(ours, 0.0) / theirs if theirs else float("inf")

    return swings(assumed, gain, steps=SWING_STEPS, halvings=SWING_HALVINGS)
