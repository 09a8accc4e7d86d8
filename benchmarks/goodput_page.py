"""The page of disaggregation.py: goodput by rate, regret, the best rates, where the scheduler sent what, and the verdict."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from measuring import Spread, show, spread, table
from quiet import LIMIT, TRIES

GOAL = 0.05
"""Of the best fixed rule's goodput, what the choice may lose at most."""
Levels = list[dict[str, Any]]


def goodput(level: dict[str, Any], name: str) -> float:
    """Median over the rounds."""
    return float(statistics.median(level["routes"][name]["goodput"]))


def best_rival(level: dict[str, Any], rivals: Sequence[str]) -> str:
    """The fixed rule with the highest goodput by its median: one for all rounds, or the luckiest of each would be taken."""
    return max(rivals, key=lambda name: goodput(level, name))


def best_level(levels: Levels, name: str) -> dict[str, Any]:
    """Where this contestant's goodput is highest."""
    return max(levels, key=lambda level: goodput(level, name))


def regret(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """1 - ours / theirs, round by round; None where they have no goodput in one of them."""
    if min(theirs) <= 0:
        return None
    return spread([1 - mine / other for mine, other in zip(ours, theirs, strict=True)])


def page(records: Sequence[dict[str, Any]], *, names: Sequence[str]) -> str:
    """All of it. The last name is the chooser's."""
    chosen, rivals = names[-1], names[:-1]
    parts = [
        "Requests a second that kept both budgets, of an open loop: *rate* x the share of the turn's requests, medians "
        "over the rounds; in brackets that share. *split a → b*: prompts on a, tokens on b, nothing else is possible "
        "there. *mixed*: both places do everything, each request is whole at the one with the fewest open requests, "
        "prompts in chunks of so many tokens between decode steps. *chosen*: the same deployment as mixed with that "
        "chunk, all left to the scheduler. *regret*: 1 - chosen / the best of the others, which is named and the same "
        "for all rounds. TTFT budget: 4 times, TPOT budget: 2 times the median without load at the slower place. "
        "Greedy, float32, random ids, no drafts; the client and the engines' own processes share the two cores with the "
        "devices. Unless a run says that turns were taken once, a turn during which others used over "
        f"{LIMIT} of a core was taken again, up to {TRIES} times."
    ]
    for item in records:
        parts += section(item, chosen, rivals)
    for model in dict.fromkeys(item["model"] for item in records):
        parts.append(times_of(next(item for item in records if item["model"] == model)))
    parts.append("## Verdict\n\n" + "\n".join(verdict(records, chosen, rivals)))
    return "\n\n".join(parts)


def section(item: dict[str, Any], chosen: str, rivals: Sequence[str]) -> list[str]:
    """One shape of one model."""
    budgets, levels = item["budgets_ms"], item["levels"]
    rounds = max(len(level["routes"][chosen]["goodput"]) for level in levels)
    noisy = sum(level["turns_under_foreign_load"] for level in levels)
    rows = []
    for level in levels:
        rival = best_rival(level, rivals)
        found = regret(level["routes"][chosen]["goodput"], level["routes"][rival]["goodput"])
        cells = [_cell(level, name) for name in (*rivals, chosen)]
        rows.append([f"{level['rate']:g}", *cells, _percent(found), rival])
    best = []
    for name in (*rivals, chosen):
        level = best_level(levels, name)
        figures = level["routes"][name]
        best.append(
            [
                name,
                f"{level['rate']:g}",
                f"{goodput(level, name):.2f}",
                f"{figures['ttft_ms']:.0f}",
                f"{figures['tpot_ms']:.2f}",
            ]
            + [f"{100 * figures[kept]:.0f} %" for kept in ("kept_ttft", "kept_tpot")]
        )
    went: Counter[str] = Counter()
    for level in levels:
        went.update(level["routes"][chosen]["went"])
    ways = ", ".join(f"{name.replace(' > ', ' → ')} {count}" for name, count in went.most_common())
    alone = "; ".join(f"{place} {found['ttft']:.1f} / {found['tpot']:.2f}" for place, found in item["alone_ms"].items())
    return [
        f"## {item['model']}: {item['shape']}",
        f"Without load, TTFT / TPOT in ms: {alone}. Budgets: TTFT {budgets['ttft']:.0f} ms, TPOT {budgets['tpot']:.1f} ms. "
        f"{rounds} rounds (one at rates so low that everybody kept nearly all) of {item['count']} requests a turn, commit "
        f"{(item['commit'] or 'unknown')[:12]}; {noisy} turns stayed under foreign load.",
        table(["requests/s", *rivals, chosen, "regret", "best of the others"], rows),
        "At each one's best rate:",
        table(["contestant", "requests/s", "goodput", "TTFT ms", "TPOT ms", "kept TTFT", "kept TPOT"], best),
        f"Chosen, all rates together: {ways} requests (prompt → tokens; a prompt in two parts counts by its first).",
    ]


def times_of(item: dict[str, Any]) -> str:
    """What the tables said and what batches took, of one model."""
    rows = [
        [name, str(found["batches"]), f"{found['median_ms']:.2f}", f"{found['of_predicted']:.2f}"]
        for name, found in item["phase_times"].items()
    ]
    return (
        f"## {item['model']}: batches beside the tables that choices rest on\n\n"
        "The engine of *chosen*, all its turns (mixed ones too). *Of predicted*: seconds of all batches over those that the "
        "table measured at the engine's start gives them.\n\n"
        + table(["place and phase", "batches", "median ms a step", "of predicted"], rows)
        + f"\n\nAll engines together used {100 * item['idle_cores']:.1f} % of a core while nobody had a turn."
    )


def verdict(records: Sequence[dict[str, Any]], chosen: str, rivals: Sequence[str]) -> list[str]:
    """A line a shape, whether the goal was met at the best rates and at every rate, and where not."""
    lines = []
    for item in records:
        levels = item["levels"]
        rival = max(rivals, key=lambda name: goodput(best_level(levels, name), name))
        ours, theirs = best_level(levels, chosen), best_level(levels, rival)
        found = regret(ours["routes"][chosen]["goodput"], theirs["routes"][rival]["goodput"])
        split = max(goodput(best_level(levels, name), name) for name in rivals if name.startswith("split"))
        mixed = max(goodput(best_level(levels, name), name) for name in rivals if name.startswith("mixed"))
        lost = []
        for level in levels:
            other = best_rival(level, rivals)
            at = regret(level["routes"][chosen]["goodput"], level["routes"][other]["goodput"])
            if at is not None and at.median > GOAL:
                lost.append(f"{level['rate']:g} ({_percent(at)} behind {other})")
        met = found is not None and found.median <= GOAL
        lines.append(
            f"- {item['model']}, {item['shape']}: the split's goodput is {split / mixed:.2f} of mixed batching's, each at "
            "its best. "
            f"Regret of the choice at the best rates {_percent(found)} behind {rival}, goal {100 * GOAL:.0f} %: "
            + ("met" if met else "**missed**")
            + (f". Over the goal at {', '.join(lost)} requests/s." if lost else "; within the goal at every rate.")
        )
    return lines


def _cell(level: dict[str, Any], name: str) -> str:
    figures = level["routes"][name]
    return f"{goodput(level, name):.2f} ({100 * statistics.median(figures['shares']):.0f} %)"


def _percent(found: Spread | None) -> str:
    if found is None:
        return "-"
    return show(Spread(100 * found.median, 100 * found.low, 100 * found.high), 0) + " %"
