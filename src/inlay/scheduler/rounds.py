"""Decode steps that a runner takes one after another without being told: how many, and when it is told to stop.

So the next step begins while the scheduler still takes in the last one. Only where nothing has to be decided in between: all
that decode there take part, none is guided, drafts or takes a hand-off in, and no prompt has its turn before they are over.
"""

from __future__ import annotations

import msgspec

from inlay.scheduler.paging import PagePool
from inlay.scheduler.sequence import Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.specs.device import Interrupt, Row
from inlay.specs.schedule import Command, Send
from inlay.specs.speculation import OFF


def rounds_of(state: State, runner: RunnerState, rows: list[Row], capacity: int, now: float) -> int:
    """How many times a decode batch of these rows may run in a row."""
    most = runner.facts.rounds
    if most > 1 and runner.prefilling:
        most = min(most, _until_chunk(runner, len(rows), capacity, now))
    if most <= 1 or len(rows) < runner.members:
        return 1
    if any(state.sequences[number].decode == runner.name for number in state.handoffs.values()):
        return 1
    for row in rows:
        sequence = state.sequences[row.sequence]
        if not _is_plain(sequence):
            return 1
        request = sequence.request
        room = min(capacity - row.past_length, state.setup.context - len(sequence.tokens))
        most = min(most, request.max_tokens - sequence.generated, room)
    return max(1, most)


def paged_rounds(
    state: State, runner: RunnerState, paging: PagePool, rows: list[Row], capacity: int, now: float
) -> tuple[int, list[Row]]:
    """How often a decode batch on pages may run in a row, as far as there are pages for it, and its rows with these."""
    rounds = rounds_of(state, runner, rows, capacity, now)
    if rounds == 1:
        return 1, rows
    tables = [state.sequences[row.sequence].tables[runner.name] for row in rows]
    for row, table in zip(rows, tables, strict=True):
        missing = paging.pages_for(row.past_length + rounds) - len(table)
        table += paging.take(max(0, min(missing, paging.available)))
        rounds = min(rounds, len(table) * paging.page - row.past_length)
    held = [table[: paging.pages_for(row.past_length + rounds)] for row, table in zip(rows, tables, strict=True)]
    rows = [msgspec.structs.replace(row, pages=tuple(pages)) for row, pages in zip(rows, held, strict=True)]
    return rounds, with_ends(state, rows)


def with_ends(state: State, rows: list[Row]) -> list[Row]:
    """The rows with the tokens that end their sequences."""
    found = [(row, state.sequences[row.sequence].request.stop_tokens) for row in rows]
    return [msgspec.structs.replace(row, ends=ends) if ends else row for row, ends in found]


def interrupt_if_changed(runner: RunnerState, now: float) -> list[Command]:
    """Stop the rounds under way where a sequence came, went or began to draft since they began, or a prompt has its turn."""
    flight = runner.flight
    if flight is None or flight.rounds == 1 or flight.stopped:
        return []
    if flight.changes == runner.changes and not (runner.prefilling and now >= runner.next_chunk):
        return []
    flight.stopped = True
    return [Send(runner.name, Interrupt(batch=flight.batch))]


def _until_chunk(runner: RunnerState, rows: int, capacity: int, now: float) -> int:
    """How many rounds end before a prompt has its turn, by the table; 1 where there is none, or prompts need no turn."""
    table = runner.facts.table if runner.paging is None else None
    seconds = 0.0 if table is None else table.seconds(batch=rows, width=1, past=capacity)
    return int((runner.next_chunk - now) / seconds) if seconds > 0.0 else 1


def _is_plain(sequence: Sequence) -> bool:
    request, speculation = sequence.request, sequence.speculation
    return not request.guided and not request.sampling.looks_back and (speculation is None or speculation.mode == OFF)
