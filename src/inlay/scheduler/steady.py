"""Decode steps after which nothing has to be decided: which they are, and the state as many of them leave it.

For whoever knows how long steps take and would rather not take each of them through `step`: the simulator. A test compares
the two, token by token.
"""

from __future__ import annotations

from typing import NamedTuple

from inlay.scheduler.paging import PagePool
from inlay.scheduler.sequence import DECODE, Sequence
from inlay.scheduler.slots import window
from inlay.scheduler.state import InFlight, RunnerState, State


class Turn(NamedTuple):
    """The steps of one capacity: its sequences, the slots from `first` on that each step covers, and for how many more
    tokens each sequence has room before it ends or must move. For `reach` of them there are pages too, on a paged runner."""

    capacity: int
    members: list[Sequence]
    first: int
    covered: int
    room: int
    reach: int


class Steady(NamedTuple):
    """What a runner goes on with: its capacities in turn, the one in flight first, and the most rounds that one batch may
    have. It holds until the runner is told of something else or a sequence has no room left."""

    turns: tuple[Turn, ...]
    rounds: int


def steady(state: State, runner: RunnerState) -> Steady | None:
    """How the decode batch in flight would go on by itself; None where something is to be decided when it is done."""
    flight = runner.flight
    if flight is None or flight.phase != DECODE or flight.stopped or not runner.alive or state.admissible:
        return None
    if runner.prefilling or runner.drafting or state.drafters:
        return None
    capacities = sorted(capacity for capacity, members in runner.decoding.items() if members)
    if not capacities or (runner.paging is None and runner.last_capacity not in capacities):
        return None
    at = 0 if runner.paging is not None else capacities.index(runner.last_capacity)
    turns = []
    for capacity in (*capacities[at:], *capacities[:at]):
        turn = _turn(state, runner, capacity)
        if turn is None:
            return None
        turns.append(turn)
    if len(flight.rows) != len(turns[0].members) or any(item.number not in flight.rows for item in turns[0].members):
        return None
    return Steady(tuple(turns), _most_rounds(state, runner) if len(turns) == 1 else 1)


def turn_is_awaited(state: State) -> bool:
    """Whether a prompt waits for its turn beside rounds under way: whatever happens next, on any runner, may end them."""
    return any(
        item.prefilling and item.flight is not None and item.flight.rounds > 1 and not item.flight.stopped
        for item in state.runners.values()
    )


def still_steady(state: State, runner: RunnerState, found: Steady, *, changes: int) -> bool:
    """Whether what was found when the runner had seen so many changes holds after something else has happened."""
    flight = runner.flight
    if flight is None or flight.stopped or runner.changes != changes or runner.prefilling:
        return False
    return len(found.turns) > 1 or _most_rounds(state, runner) == found.rounds


def advance(
    state: State,
    runner: RunnerState,
    found: Steady,
    *,
    tokens: list[list[int]],
    batches: int,
    turn: Turn,
    rounds: int,
    done: int,
) -> None:
    """Take in that by turn each sequence was given these tokens and that `batches` more were begun; the one in flight now is
    of this turn and has `rounds`, of which `done` are among them. The caller keeps within the turns' room and reach."""
    for taken, given in zip(found.turns, tokens, strict=True):
        if given:
            count = len(given)
            for sequence in taken.members:
                sequence.computed += count
                sequence.tokens += given
    flight = runner.flight
    if not batches or flight is None:
        return
    if runner.paging is not None:
        for sequence in turn.members:
            table = sequence.tables[runner.name]
            table += runner.paging.take(max(0, runner.paging.pages_for(sequence.computed - done + rounds) - len(table)))
    same = len(found.turns) == 1 or turn.capacity == runner.last_capacity
    rows = flight.rows if same else {item.number: (item.attempt, 1) for item in turn.members}
    state.next_batch += batches
    runner.flight = InFlight(batch=state.next_batch - 1, phase=DECODE, rows=rows, rounds=rounds, changes=runner.changes)
    if runner.paging is None:
        runner.last_capacity, runner.window = turn.capacity, turn.first + turn.covered


def _turn(state: State, runner: RunnerState, capacity: int) -> Turn | None:
    """The steps of a capacity; None where they would not cover all its sequences, or would move one first."""
    members, name = list(runner.decoding[capacity].values()), runner.name
    context, room = state.setup.context, capacity
    indices = []
    for sequence in members:
        length, request = len(sequence.tokens), sequence.request
        if sequence.speculation is not None or request.stop_tokens or request.guided or request.sampling.looks_back:
            return None
        left = request.max_tokens + len(request.prompt) - length
        room = min(room, left, capacity - sequence.computed, context - length)
        indices.append(sequence.slots[name].index)
    if runner.paging is not None:
        return _on_pages(runner, runner.paging, capacity, members, room)
    low, high = min(indices), max(indices)
    if len(members) > 1 and high - low + 1 > 2 * len(members):
        hole = runner.pool.lowest(capacity)
        if hole is not None and hole < high:
            return None
    if not runner.facts.batches:
        return Turn(capacity, members, low, high - low + 1, room, room)
    rooms = runner.pool.rooms(capacity)
    first, count = window(sorted(indices), start=runner.window, rooms=rooms, batches=runner.facts.batches)
    return Turn(capacity, members, first, count, room, room) if first <= low and high < first + count else None


def _on_pages(runner: RunnerState, paging: PagePool, capacity: int, members: list[Sequence], room: int) -> Turn | None:
    """The steps of a paged runner, as far as there are surely pages for all and for the rounds that they are taken in."""
    held = [(item.computed, len(item.tables[runner.name])) for item in members]
    rounds = runner.facts.rounds
    reach = room
    while reach > 1:
        ahead = min(reach + rounds, room)
        if sum([max(0, paging.pages_for(computed + ahead) - pages) for computed, pages in held]) <= paging.available:
            return Turn(capacity, members, 0, runner.facts.slots, room, reach)
        reach //= 2
    return None


def _most_rounds(state: State, runner: RunnerState) -> int:
    """As `rounds.rounds_of` has it for a batch of all that decode there."""
    most = runner.facts.rounds
    if most > 1 and any(state.sequences[number].decode == runner.name for number in state.handoffs.values()):
        return 1
    return most
