"""Prefill and decode apart, or whole: the best mix of instances of the fleet with and without the split, by the programme."""

from __future__ import annotations

import msgspec

from inlay.cost.ownership import PriceList
from inlay.planner.candidates import KnownSteps
from inlay.planner.programme import Instance
from inlay.planner.question import Question
from inlay.planner.report.document import Table
from inlay.planner.splits import mixed

FLOORS = (0.0, 50.0, 100.0, 200.0, 300.0)
"""Tokens a second that each user has at least, where the question names no floor."""
PAYS = 1.01
"""A split is told as worth while where it gives so many times what whole instances give."""


def mix_table(question: Question, known: KnownSteps, *, prices: PriceList, bandwidth: float) -> Table | None:
    """One row for each floor; None where nothing keeps any. `bandwidth` is of the link that carries KV, bytes a second."""
    rows = []
    gaps = [0.0]
    for floor in FLOORS if question.floor is None else (question.floor,):
        asked = msgspec.structs.replace(question, floor=floor or None)
        whole, best = (
            mixed(asked, known, catalogue=prices.catalogue, prices=prices, bandwidth=bandwidth, whole=only)
            for only in (True, False)
        )
        if best is None:
            continue
        parts, mix = best
        gaps.append(mix.gap)
        alone = 0.0 if whole is None else whole[1].throughput
        pays = mix.throughput > PAYS * alone
        rows.append(
            (
                f"{floor:g}" if floor else "none",
                f"{alone:,.0f}" if alone else "cannot",
                f"{mix.throughput:,.0f}",
                "split" if pays else "do not split",
                _told(parts if pays or whole is None else whole[0]),
            )
        )
    if not rows:
        return None
    note = (
        "Without drafts; output tokens a second, a ceiling: prompts are computed without a queue and batches stay full. KV "
        f"goes over a link of {bandwidth * 8 / 1e9:g} Gb/s (assumed), as it is kept. Where engines are extrapolated the most "
        f"hopeful one wins: read a gain as its upper end. Integer programme, gap at most {max(gaps):.0e}."
    )
    return Table(
        title="Prefill and decode apart, or whole (modelled)",
        head=("floor, tokens/s/user", "whole", "the best of both", "answer", "instances"),
        rows=tuple(rows),
        note=note,
    )


def _told(parts: tuple[tuple[Instance, int], ...]) -> str:
    """For example "2 x prefill on 1 h200, 1 x decode on 4 b200"."""
    said: dict[str, int] = {}
    for item, count in parts:
        name = f"{item.role} on {' and '.join(f'{chips} {chip}' for chip, chips in item.chips.items())}"
        said[name] = said.get(name, 0) + count
    return ", ".join(f"{count} x {name}" for name, count in said.items())
