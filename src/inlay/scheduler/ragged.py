"""Batches of a paged runner: a row for each sequence that decodes, and pieces of prompts beside them up to the token limit.

Every row has the pages that its past and its new tokens need. Where there are too few, somebody gives way.
"""

from __future__ import annotations

from collections.abc import Iterable

from inlay.scheduler.paging import PagePool
from inlay.scheduler.preempting import preempt, victim
from inlay.scheduler.prompts import pass_over, prompt_row, urgency
from inlay.scheduler.sequence import DECODE, PREFILL, Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.scheduler.verifying import ready_to_decode, take_drafts
from inlay.specs.device import Proposal, Row
from inlay.specs.schedule import Command

MIXED = "mixed"
"""The phase of a batch that has both prompts and sequences that decode."""


def ragged_rows(
    state: State, runner: RunnerState, paging: PagePool, now: float, commands: list[Command]
) -> tuple[str, list[Row]]:
    """Phase and rows of the next batch; no rows where nobody is ready. What must happen before it is added to `commands`."""
    rows: list[Row] = []
    if runner.members:
        ready = ready_to_decode(state, runner, now, commands)
        for sequence in _oldest_first(item for members in ready.values() for item in members):
            if runner.name in sequence.slots:  # else it gave way to one before it
                _decode(state, runner, paging, sequence, rows, commands)
    if rows:
        runner.held_until = None
    decoding = len(rows)
    if runner.prefilling:
        _add_prompts(runner, paging, rows)
    return MIXED if 0 < decoding < len(rows) else DECODE if decoding else PREFILL, rows


def _oldest_first(sequences: Iterable[Sequence]) -> list[Sequence]:
    """Whoever gives way comes after the one it gives way to, and so has no row yet."""
    return sorted(sequences, key=lambda item: (-item.request.priority, item.order))


def _decode(
    state: State, runner: RunnerState, paging: PagePool, sequence: Sequence, rows: list[Row], commands: list[Command]
) -> None:
    """Give the sequence its row, with the drafts that there are for it, or take everything from it where it finds no page."""
    table, computed = sequence.tables[runner.name], sequence.computed
    missing = paging.pages_for(computed + 1) - len(table)
    while missing > paging.available:
        giving = victim(runner, below=sequence, rows=computed + 1)
        commands += preempt(state, sequence if giving is None else giving)
        if giving is None:
            return
    if missing > 0:
        table += paging.take(missing)
    drafts: list[int] = []
    proposals: tuple[Proposal, ...] = ()
    if sequence.speculation is not None:
        wished = paging.pages_for(min(computed + 1 + sequence.speculation.drafts, runner.facts.capacities[-1]))
        table += paging.take(max(0, min(wished - len(table), paging.available)))
        drafts, proposals = take_drafts(state, sequence, min(len(table) * paging.page, runner.facts.capacities[-1]))
    tokens = (sequence.tokens[computed], *drafts)
    row = Row(
        sequence=sequence.number,
        slot=sequence.slots[runner.name].index,
        tokens=tokens,
        past_length=computed,
        sample=sequence.sample,
        drafts=len(drafts),
        proposals=proposals,
        pages=tuple(table[: paging.pages_for(computed + len(tokens))]),
    )
    rows.append(row)


def _add_prompts(runner: RunnerState, paging: PagePool, rows: list[Row]) -> None:
    """Pieces of prompts, the most urgent first, as many tokens as are left of the limit; a page at least, so that prompts get
    on however many decode."""
    left = max(runner.facts.chunk - sum(len(row.tokens) for row in rows), min(paging.page, runner.facts.chunk))
    chosen: list[Sequence] = []
    for sequence in sorted(runner.prefilling, key=lambda item: urgency(runner, item)):
        if not left:
            break
        end = min(sequence.computed + left, sequence.goal())
        left -= end - sequence.computed
        rows.append(prompt_row(runner, sequence, end, pages=sequence.tables[runner.name][: paging.pages_for(end)]))
        chosen.append(sequence)
    pass_over(runner, but=chosen)
