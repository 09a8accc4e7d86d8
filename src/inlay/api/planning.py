"""Plans: what runs where for a model, what it gives and costs, and what that rests on. Wiring only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from inlay.cost.money import Ownership
from inlay.cost.ownership import CONVENTIONS, PriceList
from inlay.cost.serving import Predictor, measured_points
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
    contest,
    curve_of,
    fleet_of,
    parse_draft,
    parse_fleet,
    parse_load,
)
from inlay.planner.report import Assumption, MeasuredVertex, Report, Swing, compose, page, picture, rasterised, swings, text
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
TRIED = {  # ranges of assumptions: low, high, unit, scale
    "acceptance": (0.5, 0.95, "", 1.0),
    "draft token out of SRAM": (10e-6, 500e-6, "us", 1e6),
    "draft token elsewhere": (0.1e-3, 1e-3, "us", 1e6),
    "round trip": (5e-6, 2e-3, "us", 1e6),
    "share of SRAM bandwidth": (0.1, 0.9, "", 1.0),
}
FIELDS = {
    "draft token out of SRAM": "sram_overhead",
    "draft token elsewhere": "graph_overhead",
    "round trip": "round_trip",
    "share of SRAM bandwidth": "sram_share",
}
SWING_STEPS, SWING_HALVINGS = 6, 8


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
    progress: Callable[[str], None] = lambda text: None,
) -> Planned:
    """Search, then report. `sensitivity` tries each assumption of drafts against the best other way. Raises InputError,
    ClusterError, ModelError."""
    facts, predictor = read_facts(question.model), Predictor.shipped()
    known: KnownSteps = {}
    found = answer(
        question, facts, catalogue=prices.catalogue, predictor=predictor, prices=prices, known=known, progress=progress
    )

    def contested(asked: Question) -> dict[str, float]:
        return contest(asked, facts, catalogue=prices.catalogue, predictor=predictor, prices=prices, known=known)

    moved: tuple[Swing, ...] = ()
    rival = ""
    if sensitivity and found.recommended is not None:
        ours = curve_of(found.recommended)
        rival = rival_of(ours, contested(question))
        if rival:
            moved = _swings(question, ours, rival, contested, progress)
    progress("the report")
    points = _points(question, prices.catalogue, facts.name)
    report = compose(question, found, prices=prices, points=points, swings=moved, rival=rival)
    return Planned(question=question, answer=found, report=report)


def told(report: Report) -> object:
    """A report as plain data."""
    return msgspec.to_builtins(report)


def rival_of(ours: str, values: Mapping[str, float]) -> str:
    """The best curve that is not ours and keeps everything; empty where there is none."""
    others = {name: value for name, value in values.items() if name not in (ours, "every plan") and value > 0}
    return max(others, key=lambda name: others[name], default="")


def _swings(
    question: Question,
    ours: str,
    rival: str,
    contested: Callable[[Question], dict[str, float]],
    progress: Callable[[str], None],
) -> tuple[Swing, ...]:
    assumed = _assumptions(question)
    names = [item.name for item in assumed]

    def gain(changed: Mapping[str, float]) -> float:
        for name in changed:
            progress(f"sensitivity: {names.index(name) + 1} of {len(names)}")
        values = contested(_moved(question, changed))
        theirs = values.get(rival, 0.0)
        return values.get(ours, 0.0) / theirs if theirs else float("inf")

    return swings(assumed, gain, steps=SWING_STEPS, halvings=SWING_HALVINGS) if assumed else ()


def _assumptions(question: Question) -> tuple[Assumption, ...]:
    """Those that its drafts rest on."""
    values = {name: getattr(question.drafting, field) for name, field in FIELDS.items()}
    drafts = {"apart": question.draft, "on the target's chips": question.own_draft}
    if not any(drafts.values()):
        return ()
    found = []
    for where, draft in drafts.items():
        if draft is not None:
            low, high, unit, scale = TRIED["acceptance"]
            name = f"acceptance {where}"
            found.append(Assumption(name=name, value=draft.acceptance, low=low, high=high, unit=unit, scale=scale))
    for name, value in values.items():
        low, high, unit, scale = TRIED[name]
        found.append(Assumption(name=name, value=value, low=min(low, value), high=max(high, value), unit=unit, scale=scale))
    return tuple(found)


def _moved(question: Question, changed: Mapping[str, float]) -> Question:
    """The question with other assumptions."""
    drafting = {FIELDS[name]: value for name, value in changed.items() if name in FIELDS}
    given: dict[str, DraftModel | DraftingAssumptions] = {"drafting": msgspec.structs.replace(question.drafting, **drafting)}
    for name, field in (("acceptance apart", "draft"), ("acceptance on the target's chips", "own_draft")):
        if name in changed:
            given[field] = msgspec.structs.replace(getattr(question, field), acceptance=changed[name])
    return msgspec.structs.replace(question, **given)


def _points(question: Question, catalogue: Catalogue, model: str) -> tuple[MeasuredVertex, ...]:
    """Published measurements of this model on these chips at a shape near the one asked for (both lengths within 30 %)."""
    names = {catalogue.sheet(item.chip).name: item.chip for item in question.fleet}
    found = []
    for point in measured_points(catalogue).points:
        chip, measured = point.group
        lengths = zip(point.shape, (question.load.input_tokens, question.load.output_tokens), strict=True)
        near = all(abs(one / other - 1.0) <= 0.3 for one, other in lengths)
        if measured == model and chip in names and near and point.throughput is not None:
            wanted = point.wanted
            told = f"{wanted.engine.name} {wanted.engine.version} {wanted.engine.date}".replace("  ", " ")
            found.append(
                MeasuredVertex(
                    chip=names[chip],
                    interactivity=1.0 / point.tpot,
                    per_chip=point.throughput,
                    configuration=f"tp {wanted.tensor} of {wanted.chips}, {told}, {wanted.load.concurrency:.0f} at once",
                    source=point.source,
                )
            )
    return tuple(found)
