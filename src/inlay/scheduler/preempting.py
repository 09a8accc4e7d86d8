"""Slots that must be taken from somebody: whose, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence as Items

from inlay.scheduler.drafting import end
from inlay.scheduler.handoff import close_handoff
from inlay.scheduler.keeping import has_room, keep
from inlay.scheduler.sequence import WAITING, Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.specs.schedule import Command, Preempted


def preempt(state: State, sequence: Sequence) -> list[Command]:
    """Take everything from a sequence and let it wait, first in its tenant's queue, with the tokens it has. What is
    computed is kept, so that it goes on from there; a batch under way for it no longer counts."""
    runner = sequence.runner
    commands = close_handoff(state, sequence, "preempted")
    commands += keep(state, sequence, state.runners[runner])
    commands += end(state, sequence)
    for name in list(sequence.slots):
        state.runners[name].release(sequence)
    sequence.phase, sequence.computed = WAITING, 0
    sequence.attempt += 1
    state.waiting.add(sequence, first=True)
    return [*commands, Preempted(sequence.number, runner)]


def victim(runner: RunnerState, *, below: Sequence, rows: int) -> Sequence | None:
    """Who gives way to `below`, of those whose slot there has so many rows: of the lowest priority the one admitted last,
    but never one of higher priority or admitted before it. So the oldest of the highest priority always gets on."""
    rank, name = (below.request.priority, -below.order), runner.name
    others = [
        item
        for item in runner.holders.values()
        if (item.request.priority, -item.order) < rank and item.slots[name].capacity >= rows
    ]
    return min(others, key=lambda item: (item.request.priority, -item.order), default=None)


def take_room(state: State, sequence: Sequence, runners: Items[RunnerState]) -> list[Command]:
    """Make room for a waiting sequence by taking it from one of lower priority, where there is one."""
    rows = len(sequence.tokens) + 1
    commands: list[Command] = []
    while not any(has_room(state, sequence, item, rows) for item in runners):
        found = [item for runner in runners if runner.alive for item in _lower(runner, sequence, rows)]
        lowest = min(found, key=lambda item: (item.request.priority, -item.order), default=None)
        if lowest is None:
            break
        commands += preempt(state, lowest)
    return commands


def _lower(runner: RunnerState, sequence: Sequence, rows: int) -> list[Sequence]:
    """Those of lower priority whose slots of so many rows could be taken there; on a paged runner nobody where the pages of
    all of them would be too few."""
    found = [
        item
        for item in runner.holders.values()
        if item.request.priority < sequence.request.priority
        and item.decode == runner.name
        and item.slots[runner.name].capacity >= rows
    ]
    paging = runner.paging
    if paging is None:
        return found
    staying = sum(1 for items in runner.decoding.values() for item in items.values() if item not in found)
    freed = paging.available + paging.freed_by(item.tables[runner.name] for item in found)
    return found if paging.pages_for(rows) + staying <= freed else []
