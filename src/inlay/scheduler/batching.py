"""What an idle runner does next: a chunk of a prompt or one decode step, by turns.py; on a paged runner all of it together."""

from __future__ import annotations

from inlay.scheduler.drafting import next_draft
from inlay.scheduler.growing import compact, grow
from inlay.scheduler.paging import PagePool
from inlay.scheduler.prompts import pass_over, prompt_row, urgency
from inlay.scheduler.ragged import ragged_rows
from inlay.scheduler.rounds import paged_rounds, rounds_of, with_ends
from inlay.scheduler.sequence import DECODE, PREFILL, Sequence
from inlay.scheduler.slots import window
from inlay.scheduler.state import InFlight, RunnerState, State
from inlay.scheduler.turns import chunk_is_next
from inlay.scheduler.verifying import ready_to_decode, take_drafts
from inlay.specs.device import Row, Submit
from inlay.specs.schedule import Command, Send


def next_batch(state: State, runner: RunnerState, now: float) -> list[Command]:
    """Commands that give an idle runner its next batch; nothing when it is busy, dead or has no work."""
    if runner.flight is not None or not runner.alive:
        return []
    if runner.drafting:
        return next_draft(state, runner)
    if runner.paging is not None:
        return _ragged(state, runner, runner.paging, now)
    commands = grow(state, runner)
    if runner.prefilling and chunk_is_next(runner, now):
        commands.append(_prefill(state, runner))
    elif any(runner.decoding.values()):
        ready = ready_to_decode(state, runner, now, commands)
        if ready:
            _decode(state, runner, ready, commands, now)
    return commands


def _prefill(state: State, runner: RunnerState) -> Command:
    """The next chunk of one prompt, the most urgent."""
    sequence = min(runner.prefilling, key=lambda item: urgency(runner, item))
    pass_over(runner, but=(sequence,))
    slot = sequence.slots[runner.name]
    row = prompt_row(runner, sequence, min(sequence.computed + runner.facts.chunk, sequence.goal()))
    rooms = runner.pool.rooms(slot.capacity)
    first, count = window([slot.index], start=slot.index, rooms=rooms, batches=runner.facts.batches)
    flight = {sequence.number: (sequence.attempt, len(row.tokens))}
    return _submit(state, runner, PREFILL, slot.capacity, first, count, [row], flight)


def _ragged(state: State, runner: RunnerState, paging: PagePool, now: float) -> list[Command]:
    """Everything that a paged runner can do now, in one batch."""
    commands: list[Command] = []
    phase, rows = ragged_rows(state, runner, paging, now, commands)
    if rows:
        flight = {row.sequence: (state.sequences[row.sequence].attempt, len(row.tokens)) for row in rows}
        (capacity,) = runner.pool.capacities
        rounds, rows = paged_rounds(state, runner, paging, rows, capacity, now) if phase == DECODE else (1, rows)
        commands.append(_submit(state, runner, phase, capacity, 0, runner.facts.slots, rows, flight, rounds=rounds))
    return commands


def _decode(state: State, runner: RunnerState, ready: dict[int, list[Sequence]], commands: list[Command], now: float) -> None:
    """One step of the sequences of one capacity, each with the drafts that there are for it."""
    capacities = sorted(ready)
    capacity = next((item for item in capacities if item > runner.last_capacity), capacities[0])
    commands += compact(runner, capacity)
    name, rooms = runner.name, runner.pool.rooms(capacity)
    members = [(item.slots[name].index, item) for item in ready[capacity]]
    indices = sorted([index for index, _ in members])
    first, count = window(indices, start=runner.window, rooms=rooms, batches=runner.facts.batches)
    rows, flight = [], {}
    for index, sequence in members:
        if first <= index < first + count:
            row = _row(state, sequence, index, capacity)
            rows.append(row)
            flight[row.sequence] = (sequence.attempt, len(row.tokens))
    runner.last_capacity = capacity
    runner.window = first + count
    runner.held_until = None
    rounds = rounds_of(state, runner, rows, capacity, now)
    rows = with_ends(state, rows) if rounds > 1 else rows
    commands.append(_submit(state, runner, DECODE, capacity, first, count, rows, flight, rounds=rounds))


def _row(state: State, sequence: Sequence, index: int, capacity: int) -> Row:
    computed, request = sequence.computed, sequence.request
    sample = sequence.sample
    if sequence.speculation is not None:
        drafts, proposals = take_drafts(state, sequence, capacity)
        if drafts:
            return Row(
                sequence=request.sequence,
                slot=index,
                tokens=(sequence.tokens[computed], *drafts),
                past_length=computed,
                sample=sample,
                drafts=len(drafts),
                proposals=proposals,
            )
    return Row(sequence=request.sequence, slot=index, tokens=(sequence.tokens[computed],), past_length=computed, sample=sample)


def _submit(
    state: State,
    runner: RunnerState,
    phase: str,
    capacity: int,
    first: int,
    count: int,
    rows: list[Row],
    flight: dict[int, tuple[int, int]],
    *,
    rounds: int = 1,
) -> Command:
    batch = state.next_batch
    state.next_batch += 1
    runner.flight = InFlight(batch=batch, phase=phase, rows=flight, rounds=rounds, changes=runner.changes)
    runner.last_phase = phase
    width = max([len(row.tokens) for row in rows])
    message = Submit(
        batch=batch, phase=phase, capacity=capacity, first=first, count=count, width=width, rows=tuple(rows), rounds=rounds
    )
    return Send(runner.name, message)
