"""What an idle runner does next: a chunk of a prompt or one decode step, in turn."""

from __future__ import annotations

from inlay.scheduler.growing import compact, grow
from inlay.scheduler.sequence import DECODE, PREFILL, Sequence
from inlay.scheduler.state import InFlight, RunnerState, State
from inlay.specs.device import Row, Submit
from inlay.specs.schedule import Command, Send

PATIENCE = 4
"""A prompt that was passed over this often is treated as if one more of its chunks were done."""


def next_batch(state: State, runner: RunnerState) -> list[Command]:
    """Commands that give an idle runner its next batch; nothing when it is busy, dead or has no work."""
    if runner.flight is not None or not runner.alive:
        return []
    commands = grow(state, runner)
    decodable = any(runner.decoding.values())
    if runner.prefilling and (runner.last_phase == DECODE or not decodable):
        commands.append(_prefill(state, runner))
    elif decodable:
        _decode(state, runner, commands)
    return commands


def _prefill(state: State, runner: RunnerState) -> Command:
    """The next chunk of one prompt; the last one samples and, when it is handed off, commits."""
    sequence = _next_prompt(runner)
    slot = sequence.slots[runner.name]
    start, wanted = sequence.computed, sequence.wanted()
    end = min(start + runner.facts.chunk, wanted)
    last, moves = end == wanted, sequence.prefill != sequence.decode
    row = Row(
        sequence=sequence.number,
        slot=slot.index,
        tokens=tuple(sequence.tokens[start:end]),
        past_length=start,
        sample=sequence.sampling() if last and not sequence.generated else None,
        prompt=max(0, min(end, len(sequence.request.prompt)) - start),
        transfer=sequence.transfer if moves else None,
        commit=last and moves and sequence.transfer is not None,
    )
    first, count = _window(runner, [slot.index], slot.index, runner.pool.rooms(slot.capacity))
    return _submit(
        state, runner, PREFILL, slot.capacity, first, count, [row], {sequence.number: (sequence.attempt, end - start)}
    )


def _next_prompt(runner: RunnerState) -> Sequence:
    """The prompt with least left to compute, the older one among equals: prompts end one after another, so decoding
    begins early and the devices overlap. Each time a prompt is passed over counts as part of a chunk done, so a long
    one is never starved. A higher priority goes first."""
    chunk = runner.facts.chunk

    def left(sequence: Sequence) -> tuple[int, int]:
        return -sequence.request.priority, sequence.wanted() - sequence.computed - sequence.passed_over * chunk // PATIENCE

    chosen = min(runner.prefilling, key=left)
    for sequence in runner.prefilling:
        sequence.passed_over = 0 if sequence is chosen else sequence.passed_over + 1
    return chosen


def _decode(state: State, runner: RunnerState, commands: list[Command]) -> None:
    capacities = sorted([capacity for capacity, members in runner.decoding.items() if members])
    capacity = next((item for item in capacities if item > runner.last_capacity), capacities[0])
    commands += compact(runner, capacity)
    name, rooms = runner.name, runner.pool.rooms(capacity)
    members = [(item.slots[name].index, item) for item in runner.decoding[capacity].values()]
    first, count = _window(runner, sorted([index for index, _ in members]), runner.window, rooms)
    rows, flight = [], {}
    for index, sequence in members:
        if first <= index < first + count:
            computed, number = sequence.computed, sequence.request.sequence
            rows.append(
                Row(
                    sequence=number,
                    slot=index,
                    tokens=(sequence.tokens[computed],),
                    past_length=computed,
                    sample=sequence.request.sampling if not sequence.request.min_tokens else sequence.sampling(),
                )
            )
            flight[number] = (sequence.attempt, 1)
    runner.last_capacity = capacity
    runner.window = first + count
    commands.append(_submit(state, runner, DECODE, capacity, first, count, rows, flight))


def _submit(
    state: State,
    runner: RunnerState,
    phase: str,
    capacity: int,
    first: int,
    count: int,
    rows: list[Row],
    flight: dict[int, tuple[int, int]],
) -> Command:
    batch = state.next_batch
    state.next_batch += 1
    runner.flight = InFlight(batch=batch, phase=phase, rows=flight)
    runner.last_phase = phase
    width = max([len(row.tokens) for row in rows])
    message = Submit(batch=batch, phase=phase, capacity=capacity, first=first, count=count, width=width, rows=tuple(rows))
    return Send(runner.name, message)


def _window(runner: RunnerState, indices: list[int], start: int, rooms: int) -> tuple[int, int]:
    """A contiguous range of slots that covers the indices, of an allowed size. Where the largest allowed size is
    too small for all of them, the range begins at the first index from `start` on, so that all get their turn."""
    first, count = indices[0], indices[-1] - indices[0] + 1
    allowed = [size for size in runner.facts.batches if size <= rooms]
    if not allowed:
        return first, count
    fitting = [size for size in allowed if size >= count]
    if fitting:
        return max(0, min(first, rooms - fitting[0])), fitting[0]
    size = allowed[-1]
    first = next((index for index in indices if index >= start), indices[0])
    return max(0, min(first, rooms - size)), size
