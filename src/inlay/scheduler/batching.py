"""What an idle runner does next: a chunk of a prompt or one decode step, in turn; growth and compaction of slots."""

from __future__ import annotations

from inlay.scheduler.state import DECODE, PREFILL, InFlight, RunnerState, Sequence, State
from inlay.specs.device import Move, Row, SlotAddress, Submit
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import Command, Send

PATIENCE = 4
"""A prompt that was passed over this often is treated as if one more of its chunks were done."""


def next_batch(state: State, runner: RunnerState) -> list[Command]:
    """Commands that give an idle runner its next batch; nothing when it is busy, dead or has no work."""
    if runner.flight is not None or not runner.alive:
        return []
    commands = _grow(state, runner)
    decodable = any(runner.decoding.values())
    if runner.prefilling and (runner.last_phase == DECODE or not decodable):
        return [*commands, _prefill(state, runner)]
    if decodable:
        return [*commands, *_decode(state, runner)]
    return commands


def _prefill(state: State, runner: RunnerState) -> Command:
    """The next chunk of one prompt; the last one samples and, when it is handed off, commits."""
    name = runner.facts.runner
    sequence = _next_prompt(state, runner)
    slot = sequence.slots[name]
    start = sequence.computed
    end = min(start + runner.facts.chunk, sequence.wanted())
    last = end == sequence.wanted()
    row = Row(
        sequence=sequence.number,
        slot=slot.index,
        tokens=tuple(sequence.token(position) for position in range(start, end)),
        past_length=start,
        sample=_sampling(sequence) if last and not sequence.generated else None,
        prompt=max(0, min(end, len(sequence.request.prompt)) - start),
        transfer=sequence.transfer if sequence.prefill != sequence.decode else None,
        commit=last and sequence.transfer is not None and sequence.prefill != sequence.decode,
    )
    first, count = _window(runner, [slot.index], slot.index)
    return _submit(state, runner, PREFILL, slot.capacity, first, count, [row])


def _next_prompt(state: State, runner: RunnerState) -> Sequence:
    """The prompt with least left to compute, the older one among equals: prompts end one after another, so decoding
    begins early and the devices overlap. Each time a prompt is passed over counts as part of a chunk done, so a long
    one is never starved."""
    waiting = [state.sequences[number] for number in runner.prefilling]

    def left(sequence: Sequence) -> int:
        return sequence.wanted() - sequence.computed - sequence.passed_over * runner.facts.chunk // PATIENCE

    chosen = min(waiting, key=left)
    for sequence in waiting:
        sequence.passed_over = 0 if sequence is chosen else sequence.passed_over + 1
    return chosen


def _decode(state: State, runner: RunnerState) -> list[Command]:
    capacities = sorted(capacity for capacity, members in runner.decoding.items() if members)
    capacity = next((item for item in capacities if item > runner.last_capacity), capacities[0])
    members = runner.decoding[capacity]
    commands: list[Command] = list(_compact(state, runner, capacity))
    indices = sorted(members.values())
    first, count = _window(runner, indices, runner.window)
    rows = []
    for number, index in members.items():
        if first <= index < first + count:
            sequence = state.sequences[number]
            rows.append(
                Row(
                    sequence=number,
                    slot=index,
                    tokens=(sequence.token(sequence.computed),),
                    past_length=sequence.computed,
                    sample=_sampling(sequence),
                )
            )
    runner.last_capacity = capacity
    runner.window = first + count
    return [*commands, _submit(state, runner, DECODE, capacity, first, count, rows)]


def _submit(state: State, runner: RunnerState, phase: str, capacity: int, first: int, count: int, rows: list[Row]) -> Command:
    batch = state.next_batch
    state.next_batch += 1
    flight = {row.sequence: (state.sequences[row.sequence].attempt, len(row.tokens)) for row in rows}
    runner.flight = InFlight(batch=batch, phase=phase, rows=flight)
    runner.last_phase = phase
    width = max(len(row.tokens) for row in rows)
    message = Submit(batch=batch, phase=phase, capacity=capacity, first=first, count=count, width=width, rows=tuple(rows))
    return Send(runner.facts.runner, message)


def _window(runner: RunnerState, indices: list[int], start: int) -> tuple[int, int]:
    """A contiguous range of slots that covers the indices, of an allowed size. Where the largest allowed size is
    too small for all of them, the range begins at the first index from `start` on, so that all get their turn."""
    facts = runner.facts
    first, count = indices[0], indices[-1] - indices[0] + 1
    if not facts.batches:
        return first, count
    fitting = [size for size in facts.batches if size >= count]
    if fitting:
        size = min(fitting[0], facts.slots)
        return max(0, min(first, facts.slots - size)), size
    size = facts.batches[-1]
    first = next((index for index in indices if index >= start), indices[0])
    return max(0, min(first, facts.slots - size)), size


def _sampling(sequence: Sequence) -> Sampling:
    """The row's sampling parameters; end tokens are forbidden while fewer than min_tokens are generated."""
    request = sequence.request
    if len(sequence.generated) < request.min_tokens and request.stop_tokens:
        forbidden = tuple({*request.sampling.forbidden, *request.stop_tokens})
        return Sampling(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            top_k=request.sampling.top_k,
            seed=request.sampling.seed,
            top_n=request.sampling.top_n,
            forbidden=forbidden,
        )
    return request.sampling


def _grow(state: State, runner: RunnerState) -> list[Command]:
    """Sequences whose bucket is full move to the next one before they decode again."""
    commands: list[Command] = []
    for capacity in sorted(runner.decoding):
        for number in list(runner.decoding[capacity]):
            sequence = state.sequences[number]
            if sequence.computed >= capacity:
                larger = runner.pool.capacity_for(sequence.computed + 1)
                if larger is not None:
                    commands.append(_move(runner, sequence, runner.pool.take(larger)))
    return commands


def _compact(state: State, runner: RunnerState, capacity: int) -> list[Command]:
    """While more than half of the covered range is idle, bring the highest sequence down to the lowest hole."""
    commands: list[Command] = []
    members = runner.decoding[capacity]
    while len(members) > 0:
        span = max(members.values()) - min(members.values()) + 1
        hole = runner.pool.lowest(capacity)
        number = max(members, key=lambda item: members[item])
        if span <= 2 * len(members) or hole is None or hole >= members[number]:
            return commands
        commands.append(_move(runner, state.sequences[number], runner.pool.take(capacity)))
    return commands


def _move(runner: RunnerState, sequence: Sequence, destination: SlotAddress) -> Command:
    name = runner.facts.runner
    source = sequence.slots[name]
    del runner.decoding[source.capacity][sequence.number]
    runner.pool.give(source)
    sequence.slots[name] = destination
    runner.start_decoding(sequence)
    move = Move(sequence=sequence.number, source=source, destination=destination, length=sequence.computed)
    return Send(name, move)
