"""The search: candidates priced, their frontiers by axis, and the best that keeps what was asked, or the nearest to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from inlay.cost.ownership import PriceList
from inlay.cost.serving import Predictor
from inlay.hardware.catalogue import Catalogue
from inlay.models.facts import ModelFacts
from inlay.planner.candidates import Group, KnownSteps, groups
from inlay.planner.plans import Grade, Plan, Speculation, Stage
from inlay.planner.question import AXES, Question


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`frontiers` are plans of one instance by axis and by name of the curve: "every plan", "CHIP without drafts", "CHIP, own
    drafts", "drafts on CHIP". `recommended` is what keeps everything asked, filled up to the fleet and its caps; None where
    nothing does, and then `nearest` come nearest and `missing` says by how much they miss. `searched` counts candidates."""

    recommended: Plan | None
    frontiers: dict[str, dict[str, tuple[Plan, ...]]]
    nearest: tuple[Plan, ...]
    missing: tuple[str, ...]
    reasons: tuple[str, ...]
    searched: int


@dataclass(frozen=True)
class _Pool:
    """All candidates flat: which group and place in it, and their figures; `dollars` is not a number without a price."""

    groups: tuple[Group, ...]
    group: np.ndarray
    place: np.ndarray
    user: np.ndarray
    rate: np.ndarray
    chips: np.ndarray
    targets: np.ndarray
    kilowatts: np.ndarray
    dollars: np.ndarray
    ttft: np.ndarray

    def value(self, axis: str) -> np.ndarray:
        divisor = {"chip": self.chips, "target": self.targets, "kilowatt": self.kilowatts, "dollar": self.dollars}[axis]
        found: np.ndarray = self.rate / divisor
        return found


def answer(
    question: Question,
    facts: ModelFacts,
    *,
    catalogue: Catalogue,
    predictor: Predictor,
    prices: PriceList,
    known: KnownSteps | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Search it; steps that were computed before may be given as `known`, which keeps them.

    Raises InputError for a question that contradicts itself or that no chip can serve at all."""
    question.check()
    steps: KnownSteps = {} if known is None else known
    found = groups(question, facts, catalogue=catalogue, predictor=predictor, known=steps, progress=progress)
    progress("frontiers")
    pool = _pool(found, prices)
    curves = _curves(pool)
    frontiers = {
        axis: {
            name: tuple(_plan(pool, int(index), prices) for index in frontier(pool.user, pool.value(axis), kept))
            for name, kept in curves.items()
        }
        for axis in AXES
    }
    progress("choosing")
    recommended, nearest, missing, reasons = _choose(question, pool, prices)
    return Answer(
        recommended=recommended, frontiers=frontiers, nearest=nearest, missing=missing, reasons=reasons, searched=len(pool.user)
    )


def contest(
    question: Question,
    facts: ModelFacts,
    *,
    catalogue: Catalogue,
    predictor: Predictor,
    prices: PriceList,
    known: KnownSteps,
) -> dict[str, float]:
    """The most tokens per axis of each curve among those that keep everything asked, 0 where none does: what sensitivity asks
    again and again."""
    pool = _pool(groups(question, facts, catalogue=catalogue, predictor=predictor, known=known), prices)
    excess = _excess(question, pool)
    most = np.max(np.stack(list(excess.values())), axis=0) if excess else np.zeros(len(pool.user))
    value = pool.value(question.axis)
    good = (most <= 1e-9) & np.isfinite(value)
    return {name: float(value[kept & good].max(initial=0.0)) for name, kept in _curves(pool).items()}


def curve_of(plan: Plan) -> str:
    """The name of the curve that a plan belongs to, the narrowest."""
    drafter = next((stage.chip for stage in plan.stages if stage.role == "draft"), "")
    if drafter:
        return f"drafts on {drafter}"
    return f"{plan.stages[0].chip}{', own drafts' if plan.speculation else ' without drafts'}"


def frontier(user: np.ndarray, value: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Indices of those of `kept` that no other beats in both, from the fastest user on; equal ones once, none without value."""
    rows = np.flatnonzero(kept & np.isfinite(value))
    order = rows[np.lexsort((-value[rows], -user[rows]))]
    best = np.maximum.accumulate(value[order]) if len(order) else value[order]
    rises = np.ones(len(order), dtype=bool)
    rises[1:] = value[order][1:] > best[:-1]
    return order[rises]


def _pool(found: tuple[Group, ...], prices: PriceList) -> _Pool:
    costs = {name: prices.chip(name) for group in found for name in (group.target, group.drafter) if name}
    parts = []
    for index, group in enumerate(found):
        target = costs[group.target]
        kilowatts = group.chips * target.kilowatts + np.zeros(len(group.batch))
        dollars = group.chips * (target.hour.total if target.hour else np.nan) + np.zeros(len(group.batch))
        if group.drafter:
            card = costs[group.drafter]
            kilowatts = kilowatts + group.cards * card.kilowatts
            dollars = dollars + group.cards * (card.hour.total if card.hour else np.nan)
        size = len(group.batch)
        ends = (np.full(size, index), np.arange(size), group.user, group.rate)
        parts.append((*ends, group.chips + group.cards, group.chips + np.zeros(size), kilowatts, dollars, group.ttft))
    return _Pool(found, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def _curves(pool: _Pool) -> dict[str, np.ndarray]:
    """Which candidates each curve is of."""
    placement = np.array([group.placement for group in pool.groups])[pool.group]
    target = np.array([group.target for group in pool.groups])[pool.group]
    drafter = np.array([group.drafter for group in pool.groups])[pool.group]
    curves = {"every plan": np.ones(len(pool.user), dtype=bool)}
    for chip in dict.fromkeys(group.target for group in pool.groups):
        curves[f"{chip} without drafts"] = (target == chip) & (placement == "")
        if ((target == chip) & (placement == "own")).any():
            curves[f"{chip}, own drafts"] = (target == chip) & (placement != "apart")
    for chip in dict.fromkeys(group.drafter for group in pool.groups if group.drafter):
        curves[f"drafts on {chip}"] = drafter == chip
    return curves


def _choose(
    question: Question, pool: _Pool, prices: PriceList
) -> tuple[Plan | None, tuple[Plan, ...], tuple[str, ...], tuple[str, ...]]:
    """Among those that keep all: the best on the axis. Else those that miss the least, and by how much."""
    excess = _excess(question, pool)
    most = np.max(np.stack(list(excess.values())), axis=0) if excess else np.zeros(len(pool.user))
    axis = question.axis
    value = pool.value(axis)
    if axis == "dollar" and not np.isfinite(value[most <= 1e-9]).any():
        axis, value = "kilowatt", pool.value("kilowatt")
    good = (most <= 1e-9) & np.isfinite(value)
    if good.any():
        index = int(np.argmax(np.where(good, value, -np.inf)))
        count = _copies(question, pool, index, prices)
        reasons = [
            f"Of {len(pool.user):,} candidates {int(good.sum()):,} keep everything asked; it has the most tokens per {axis}.",
            *_runners_up(pool, good, value, axis, index),
        ]
        if axis != question.axis:
            reasons.append("None of them has a price, so they were judged by the kilowatt instead of the dollar.")
        return _plan(pool, index, prices, count=count), (), (), tuple(reasons)
    order = np.lexsort((-np.nan_to_num(value), np.round(most, 6)))
    nearest = tuple(_plan(pool, int(index), prices) for index in order[:1])
    missing = []
    for name, amount in excess.items():
        alone = int(np.argmin(np.where(np.isfinite(amount), amount, np.inf)))
        there = (
            f"the nearest plan misses it by {amount[order[0]]:.0%}" if amount[order[0]] > 1e-9 else "the nearest plan keeps it"
        )
        can = "can be kept alone" if amount[alone] <= 1e-9 else f"no plan keeps it: the best misses by {amount[alone]:.0%}"
        missing.append(f"{name}: {there}; {can}")
    return None, nearest, tuple(missing), ()


def _excess(question: Question, pool: _Pool) -> dict[str, np.ndarray]:
    """By what is asked: how far beyond it each candidate is, as a share; 0 or less is kept."""
    tpot = 1.0 / pool.user
    whole = pool.ttft + question.load.output_tokens * tpot
    found = {}
    for name, seconds in question.budgets.items():
        found[f"budget {name} {1e3 * seconds:g} ms"] = {"ttft": pool.ttft, "tpot": tpot, "e2e": whole}[name] / seconds - 1.0
    if question.floor is not None:
        found[f"floor of {question.floor:g} tokens/s per user"] = question.floor / pool.user - 1.0
    if question.cap_kilowatts is not None:
        found[f"at most {question.cap_kilowatts:g} kW"] = pool.kilowatts / question.cap_kilowatts - 1.0
    if question.cap_dollars is not None:
        over = pool.dollars / question.cap_dollars - 1.0
        found[f"at most ${question.cap_dollars:g} an hour"] = np.where(np.isfinite(over), over, np.inf)
    return found


def _copies(question: Question, pool: _Pool, index: int, prices: PriceList) -> int:
    """How many instances the fleet and the caps hold; at least one."""
    group, place = pool.groups[int(pool.group[index])], int(pool.place[index])
    counts: dict[str, int] = {}
    for item in question.fleet:
        counts[item.chip] = counts.get(item.chip, 0) + item.count
    limits = [counts[group.target] // group.chips]
    if group.drafter:
        limits.append(counts[group.drafter] // int(group.cards[place]))
    if question.cap_kilowatts is not None:
        limits.append(int(question.cap_kilowatts / pool.kilowatts[index]))
    if question.cap_dollars is not None:
        limits.append(int(question.cap_dollars / pool.dollars[index]))
    return max(1, min(limits))


def _runners_up(pool: _Pool, good: np.ndarray, value: np.ndarray, axis: str, index: int) -> list[str]:
    """The best of each other curve, against the chosen one."""
    found = []
    for name, kept in _curves(pool).items():
        rows = kept & good
        if name == "every plan" or kept[index]:
            continue
        if rows.any():
            found.append(f"The best of {name} gives {value[rows].max() / value[index]:.2f} of its tokens per {axis}.")
        else:
            found.append(f"No plan of {name} keeps everything asked, or it has no price.")
    return found


def _plan(pool: _Pool, index: int, prices: PriceList, *, count: int = 1) -> Plan:
    """A candidate as a plan of `count` equal instances."""
    group, at = pool.groups[int(pool.group[index])], int(pool.place[index])
    grade: Grade = "calibrated" if group.grade == "calibrated" and group.draft is None else "modelled"
    target = Stage(
        role="serve", chip=group.target, chips=group.chips, tensor=group.chips, expert=1, pipeline=1,
        engine=" ".join(filter(None, (group.engine.name, group.engine.version))), precision=group.precision,
        batch=float(group.batch[at]), instances=count, seconds=float(group.step[at]),
        grade="calibrated" if group.grade == "calibrated" else "modelled",
    )  # fmt: skip
    stages: Sequence[Stage] = (target,)
    speculation = None
    chips = {group.target: group.chips * count}
    if group.draft is not None:
        speculation = Speculation(
            drafts=int(group.drafts[at]), acceptance=group.draft.acceptance, draft_seconds=float(group.draft_token[at]),
            round_trip=group.round_trip, placement="apart" if group.drafter else "own",
        )  # fmt: skip
    if group.drafter:
        cards = int(group.cards[at])
        drafter = Stage(
            role="draft", chip=group.drafter, chips=cards, tensor=cards, expert=1, pipeline=1, engine="", precision="8 bits",
            batch=float(group.batch[at]), instances=count, seconds=float(group.draft_token[at]), grade="modelled",
        )  # fmt: skip
        stages = (target, drafter)
        chips[group.drafter] = chips.get(group.drafter, 0) + cards * count
    cost = prices.fleet(chips)
    tpot, ttft = 1.0 / float(pool.user[index]), float(pool.ttft[index])
    return Plan(
        kind="draft apart" if group.drafter else "aggregated", stages=tuple(stages), speculation=speculation, tpot=tpot,
        ttft=ttft, throughput=float(pool.rate[index]) * count, low=1.0 / group.high, high=1.0 / group.low,
        tpot_low=tpot * group.low, tpot_high=tpot * group.high, ttft_low=ttft * group.low,
        ttft_high=ttft * group.high, kilowatts=cost.kilowatts, dollars_an_hour=cost.total, unpriced=cost.unpriced,
        chips=chips, grade=grade, assumptions=(group.note,) if group.note else (),
    )  # fmt: skip
