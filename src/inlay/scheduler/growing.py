"""Slots that change: growth to the next capacity, and bringing the members of a capacity close together."""

from __future__ import annotations

from inlay.scheduler.preempting import preempt, victim
from inlay.scheduler.sequence import Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.specs.device import Move, SlotAddress
from inlay.specs.schedule import Command, Send


def grow(state: State, runner: RunnerState) -> list[Command]:
    """Sequences whose slot is full move to a larger one before they decode again; where there is none, somebody gives way."""
    commands: list[Command] = []
    for capacity, members in list(runner.decoding.items()):
        full = [sequence for sequence in members.values() if sequence.computed >= capacity]
        for sequence in full:
            commands += _enlarge(state, runner, sequence)
    return commands


def _enlarge(state: State, runner: RunnerState, sequence: Sequence) -> list[Command]:
    if runner.name not in sequence.slots:
        return []  # it gave way to one before it
    needed = sequence.computed + 1
    larger = runner.pool.room_for(needed)
    if larger is not None:
        return [move(runner, sequence, runner.pool.take(larger))]
    giving = victim(runner, below=sequence, rows=needed)
    if giving is None:
        return preempt(state, sequence)
    commands = preempt(state, giving)
    larger = runner.pool.room_for(needed)
    if larger is None:
        raise ValueError(f"{runner.name}: no slot of {needed} rows after sequence {giving.number} gave way")
    return [*commands, move(runner, sequence, runner.pool.take(larger))]


def compact(runner: RunnerState, capacity: int) -> list[Command]:
    """While more than half of the covered range is idle, bring the highest sequence down to the lowest hole."""
    members, name = runner.decoding[capacity], runner.name
    if len(members) < 2:
        return []
    commands: list[Command] = []
    while True:
        indices = [item.slots[name].index for item in members.values()]
        highest = max(indices)
        if highest - min(indices) + 1 <= 2 * len(members):
            return commands
        hole = runner.pool.lowest(capacity)
        if hole is None or hole >= highest:
            return commands
        sequence = next(item for item in members.values() if item.slots[name].index == highest)
        commands.append(move(runner, sequence, runner.pool.take(capacity)))


def move(runner: RunnerState, sequence: Sequence, destination: SlotAddress) -> Command:
    """Copy what is computed of a decoding sequence to another slot of its runner; the old one is free."""
    name = runner.name
    source = sequence.slots[name]
    del runner.decoding[source.capacity][sequence.number]
    runner.pool.give(source)
    sequence.slots[name] = destination
    runner.start_decoding(sequence)
    return Send(name, Move(sequence=sequence.number, source=source, destination=destination, length=sequence.computed))
