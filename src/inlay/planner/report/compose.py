"""Composes the report of an answer: what is said first, its charts, tables, doubts and sources. No search, no drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inlay.cost.ownership import PriceList
from inlay.planner.plans import Plan
from inlay.planner.question import Question
from inlay.planner.report.break_even import BreakEven, break_even, break_even_table
from inlay.planner.report.document import Report, Table
from inlay.planner.report.frontiers import Kind, MeasuredVertex, charts, trace
from inlay.planner.report.ownership import doubts_of, ownership_table, sources_of
from inlay.planner.report.sensitivity import Swing, swing_table
from inlay.planner.report.shifts import shift_table
from inlay.planner.report.wording import chips_of, configuration, performance
from inlay.planner.search import Answer

SPEEDS = (100.0, 200.0, 300.0, 400.0, 500.0)
TTFT_DOUBT = "TTFT is modelled: no time to first token was fitted; its band is that of steps, its queue is a closed form"


def compose(
    question: Question,
    found: Answer,
    *,
    prices: PriceList,
    points: Sequence[MeasuredVertex] = (),
    swings: Sequence[Swing] = (),
    rival: str = "",
    beside: Sequence[Table] = (),
) -> Report:
    """The report. `swings` are of the recommended way over `rival`, the name of the curve it was held against;
    `beside` are tables of other questions."""
    plan = found.recommended or (found.nearest[0] if found.nearest else None)
    tables = [*_shift_tables(found), *_break_evens(found, prices)]
    doubts: tuple[str, ...] = (TTFT_DOUBT,)
    sources: tuple[str, ...] = ()
    if plan is not None:
        tables.insert(0, ownership_table(plan, prices))
        doubts = (*plan.assumptions, *doubts_of(plan, prices), *_assumed(question, plan), *doubts)
        sources = sources_of(plan, prices)
    tables += beside
    if swings:
        note = f"Each assumption alone, the recommended way searched again each time, against {rival}."
        tables.append(swing_table(swings, title="Sensitivity (modelled)", gain=f"Tokens per {question.axis}", note=note))
    chips = {name: prices.chip(name) for name in {item.chip for item in question.fleet}}
    drawn = charts(
        lambda axis: [(name, _kind(name), plans) for name, plans in found.frontiers[axis].items() if plans],
        points=points,
        kilowatts={name: cost.kilowatts for name, cost in chips.items()},
        dollars={name: cost.hour.total if cost.hour else None for name, cost in chips.items()},
    )
    return Report(
        title=f"A plan for {question.model}",
        asked=_asked(question, prices),
        lead=_lead(found, plan),
        reasons=found.reasons,
        hinges=_hinges(swings),
        charts=drawn,
        tables=tuple(tables),
        doubts=doubts,
        sources=sources,
    )


def _lead(found: Answer, plan: Plan | None) -> tuple[str, ...]:
    if plan is None:
        return ("No plan at all was found.",)
    told = (f"{configuration(plan)}.", f"It gives {performance(plan)}.")
    money = "no price is known of all its chips" if plan.dollars_an_hour is None else f"${plan.dollars_an_hour:,.2f} an hour"
    cost = f"{plan.kilowatts:.2f} kW all-in, {money}."
    if found.recommended is not None:
        return (f"Use {chips_of(plan)}.", *told, cost)
    return ("No plan keeps everything that was asked.", *found.missing, f"The nearest uses {chips_of(plan)}.", *told, cost)


def _asked(question: Question, prices: PriceList) -> tuple[tuple[str, str], ...]:
    load = question.load
    fleet = ", ".join(f"{item.count} x {item.chip} ({item.held})" for item in question.fleet)
    budgets = ", ".join(f"{name.upper()} {1e3 * seconds:g} ms" for name, seconds in question.budgets.items())
    limits = {
        "at least": "" if question.floor is None else f"{question.floor:g} tokens/s per user",
        "budgets": budgets,
        "at most": ", ".join(
            text
            for text in (
                "" if question.cap_dollars is None else f"${question.cap_dollars:g} an hour",
                "" if question.cap_kilowatts is None else f"{question.cap_kilowatts:g} kW",
            )
            if text
        ),
        "without": ", ".join(question.without),
    }
    drafts = [
        f"{draft.name} {where}, {draft.acceptance:.2f} of its tokens taken (stated)"
        for draft, where in ((question.own_draft, "on the target's chips"), (question.draft, "apart"))
        if draft is not None
    ]
    return (
        ("model", question.model),
        ("chips", fleet),
        ("load", f"{load.input_tokens:,.0f} tokens in, {load.output_tokens:,.0f} out, {load.hit:.0%} of the input cached"),
        *((name, text) for name, text in limits.items() if text),
        *((("drafts", "; ".join(drafts)),) if drafts else ()),
        ("judged by", f"tokens per {question.axis}"),
        ("prices", f"{prices.convention}; a chip that this set does not price is a free variable"),
    )


def _assumed(question: Question, plan: Plan) -> tuple[str, ...]:
    """What its drafts rest on."""
    if plan.speculation is None:
        return ()
    given = question.drafting
    return (
        f"drafts: each token is taken with {plan.speculation.acceptance:.2f}, in a chain; it depends on model, task and "
        "temperature: measure yours",
        f"drafts: {1e6 * given.sram_overhead:.0f} us a token out of SRAM at {given.sram_share:.0%} of its bandwidth, "
        f"{1e6 * given.graph_overhead:.0f} us elsewhere, round trip {1e6 * given.round_trip:.0f} us: assumed",
    )


def _kind(name: str) -> Kind:
    if name.startswith("drafts on"):
        return "forced"
    return "frontier" if name == "every plan" else "baseline"


def _shift_tables(found: Answer) -> list[Table]:
    """Every forced curve, and the one of every plan, over the best single chip with and without its own drafts."""
    tables = []
    for axis, said in (("chip", "chip"), ("target", "chip of the model itself"), ("kilowatt", "kW"), ("dollar", "$")):
        curves = found.frontiers[axis]
        rivals = [name for name in curves if _kind(name) == "baseline" and curves[name]]
        pairs = []
        for name in (item for item in curves if _kind(item) == "forced" and curves[item]):
            for rival in _strongest(curves, rivals):
                ours = trace(name, "forced", curves[name], axis)
                theirs = trace(rival, "baseline", curves[rival], axis)
                pairs.append((f"{name} over {rival}", ours, theirs))
        if pairs:
            table = shift_table(pairs, speeds=SPEEDS)
            title = f"Shifts per {said} (modelled)"
            tables.append(Table(title=title, head=table.head, rows=table.rows, note=table.note))
    return tables


def _strongest(curves: Mapping[str, Sequence[Plan]], rivals: Sequence[str]) -> list[str]:
    """The baselines of the target chip that goes fastest: without drafts, and with its own."""
    if not rivals:
        return []
    fastest = max(rivals, key=lambda name: max(plan.interactivity for plan in curves[name]))
    chip = fastest.removesuffix(", own drafts").removesuffix(" without drafts")
    return [name for name in rivals if name in (f"{chip} without drafts", f"{chip}, own drafts")]


def _break_evens(found: Answer, prices: PriceList) -> list[Table]:
    """For each chip without a price, over the speeds."""
    plans = [plan for curves in found.frontiers.values() for plans in curves.values() for plan in plans]
    chips = dict.fromkeys(chip for plan in plans for chip in plan.unpriced)
    rows: list[BreakEven] = []
    for chip in chips:
        using = [plan for plan in plans if plan.chips.get(chip) and plan.unpriced == (chip,)]
        rows += [break_even(chip, using=using, without=plans, prices=prices, interactivity=speed) for speed in SPEEDS]
    return [break_even_table(rows)] if rows else []


def _hinges(swings: Sequence[Swing]) -> tuple[str, ...]:
    """The assumptions that would flip the choice, in words."""
    return tuple(
        f"{swing.assumption.name}: {swing.assumption.shown(swing.assumption.value)} assumed; the choice flips at "
        f"{swing.assumption.shown(swing.flip)}."
        for swing in swings
        if swing.flip is not None
    )
