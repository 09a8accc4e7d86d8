"""What a draft runner does next, for all sequences it drafts for at once, and what becomes of its guesses.

First what a verify step waits for, then prompts it has not seen, then what runs ahead: the guess that follows the one being
verified, and where asked for the guesses that follow its likely refutations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from inlay.scheduler.line import Line
from inlay.scheduler.sequence import DECODE, WAITING, Sequence
from inlay.scheduler.slots import window
from inlay.scheduler.speculating import Guess, Speculation
from inlay.scheduler.state import InFlight, RunnerState, State
from inlay.specs.device import Draft, DraftDone, DraftRow, Interrupt, Move
from inlay.specs.schedule import Command, Send
from inlay.specs.speculation import ENUMERATED, FREE, REJECTION, SYNCHRONOUS

DRAFT = "draft"
Item = TypeVar("Item")


def next_draft(state: State, runner: RunnerState) -> list[Command]:
    """The next batch of an idle draft runner; nothing where there is nothing to guess."""
    drafting = [item for item in runner.drafting.values() if item.speculation is not None]
    commands = [command for item in drafting for command in _enlarge(state, runner, item)]
    drafting = [item for item in drafting if item.speculation is not None]
    chunk = runner.facts.chunk
    lines = [line for line in _urgent(drafting) if len(line.feed) <= chunk]
    lines = lines or _catching_up(runner, drafting)
    lines = lines or [line for line in _ahead(state, drafting) if len(line.feed) <= chunk]
    if not lines:
        return commands
    capacity = lines[0].slot.slot.capacity
    lines = [line for line in lines if line.slot.slot.capacity == capacity]
    indices = sorted({line.slot.slot.index for line in lines})
    rooms, batches = runner.pool.rooms(capacity), runner.facts.batches
    first, count = window(indices, start=runner.window, rooms=rooms, batches=batches)
    lines = [line for line in lines if first <= line.slot.slot.index < first + count]
    runner.window = first + count
    batch, state.next_batch = state.next_batch, state.next_batch + 1
    runner.flight = InFlight(batch=batch, phase=DRAFT, rows={}, lines=lines)
    for line in lines:
        line.slot.busy = True
    setup = state.setup.speculation
    rows = tuple(
        DraftRow(
            sequence=line.sequence.number,
            guess=number,
            slot=line.slot.slot.index,
            tokens=line.feed,
            past_length=line.past,
            count=line.count,
            sample=line.sequence.request.sampling,
        )
        for number, line in enumerate(lines)
    )
    ahead = any(line.speculation.mode == ENUMERATED for line in lines)
    message = Draft(
        batch=batch,
        capacity=capacity,
        first=first,
        count=count,
        rows=rows,
        alternatives=max(1, setup.breadth // 2) if ahead else 0,
        proposals=setup.truncate if setup.rule == REJECTION else 0,
    )
    return [*commands, Send(runner.name, message)]


def drafted(state: State, runner: RunnerState, done: DraftDone) -> None:
    """Guesses have come: they are kept as far as the text has not gone another way."""
    flight = runner.flight
    if flight is None or flight.batch != done.batch:
        return
    runner.flight, runner.late = None, False
    for guess in done.guesses:
        line = flight.lines[guess.guess]
        slot, tokens = line.slot, line.sequence.tokens
        slot.busy = False
        if line.sequence.speculation is not line.speculation:
            continue
        slot.agreed = line.base if line.count else line.past + len(line.feed)
        slot.tail = [*line.hypothesis, *guess.tokens[:-1]] if line.count else []
        slot.follow(tokens)
        if not line.count:
            continue
        found = Guess(line.base, [*line.hypothesis, *guess.tokens])
        blank = len(line.hypothesis)
        found.alternatives = [*[()] * blank, *guess.alternatives] if any(guess.alternatives) else []
        found.proposals = [*[()] * blank, *guess.proposals] if guess.proposals else []
        if line.extends is not None:
            _join(found, line.extends)
            line.speculation.guesses = [item for item in line.speculation.guesses if item is not line.extends]
        if found.left(tokens) > 0:
            line.speculation.guesses.append(found)


def draft_failed(state: State, runner: RunnerState) -> None:
    """A draft batch could not be run: those it was for go on without drafts."""
    flight, runner.flight, runner.late = runner.flight, None, False
    for line in flight.lines if flight is not None else ():
        if line.sequence.speculation is line.speculation:
            end(state, line.sequence)


def interrupt_if_moot(runner: RunnerState) -> list[Command]:
    """Stop a batch none of whose guesses can still come true."""
    flight = runner.flight
    if flight is None or flight.phase != DRAFT or flight.stopped or not flight.lines:
        return []
    if any(_may_come_true(line) for line in flight.lines):
        return []
    flight.stopped = True
    return [Send(runner.name, Interrupt(batch=flight.batch))]


def end(state: State, sequence: Sequence) -> list[Command]:
    """Take everything back; guesses under way for it are dropped when they come."""
    speculation, sequence.speculation = sequence.speculation, None
    if speculation is None or speculation.drafter is None:
        return []
    drafter = state.runners[speculation.drafter]
    drafter.drafting.pop(sequence.number, None)
    for slot in speculation.slots:
        drafter.pool.give(slot.slot)
    return interrupt_if_moot(drafter) if drafter.alive else []


def _may_come_true(line: Line) -> bool:
    if line.sequence.speculation is not line.speculation:
        return False
    if not line.count:
        return True
    tokens = line.sequence.tokens
    done = len(tokens) - line.base
    return line.hypothesis[:done] == tokens[line.base : line.base + len(line.hypothesis)]


def _join(found: Guess, before: Guess) -> None:
    """`found` goes on where `before` ended: what came beside the earlier tokens is still theirs."""
    found.base, found.tokens = before.base, [*before.tokens, *found.tokens[len(found.tokens) - _added(found, before) :]]
    added = _added(found, before)
    if before.alternatives or found.alternatives:
        found.alternatives = [*_padded(before.alternatives, len(before.tokens)), *_tail(found.alternatives, added)]
    if before.proposals or found.proposals:
        found.proposals = [*_padded(before.proposals, len(before.tokens)), *_tail(found.proposals, added)]


def _added(found: Guess, before: Guess) -> int:
    return found.base + len(found.tokens) - before.base - len(before.tokens)


def _padded(items: list[tuple[Item, ...]], length: int) -> list[tuple[Item, ...]]:
    return [*items, *[()] * (length - len(items))]


def _tail(items: list[tuple[Item, ...]], count: int) -> list[tuple[Item, ...]]:
    return items[len(items) - count :] if items else [()] * count


def _urgent(drafting: Iterable[Sequence]) -> list[Line]:
    """First guesses for sequences that have none and wait to be verified."""
    lines: list[Line] = []
    for sequence in drafting:
        speculation = sequence.speculation
        if speculation is None or sequence.phase != DECODE or speculation.verifying >= 0:
            continue
        if speculation.mode not in (SYNCHRONOUS, FREE, ENUMERATED):
            continue
        if speculation.best(sequence.tokens) is None:
            lines += _line(lines, sequence, speculation, [], speculation.drafts)
    return lines


def _catching_up(runner: RunnerState, drafting: Iterable[Sequence]) -> list[Line]:
    """A chunk of a text that the draft model has not seen: the one with least left."""
    chunk, behind = runner.facts.chunk, []
    for sequence in drafting:
        speculation = sequence.speculation
        if speculation is None or sequence.phase == WAITING:
            continue
        slot = speculation.slots[0]
        left = len(sequence.tokens) - slot.agreed
        if not slot.busy and left > (chunk if sequence.phase == DECODE else 1):
            behind.append((left, sequence.number, sequence, speculation, slot))
    if not behind:
        return []
    _, _, sequence, speculation, slot = min(behind)
    until = min(slot.agreed + chunk, len(sequence.tokens) - 1)
    feed = tuple(sequence.tokens[slot.agreed : until])
    return [Line(sequence, speculation, slot, len(sequence.tokens), [], feed, slot.agreed, 0)] if feed else []


def _ahead(state: State, drafting: Iterable[Sequence]) -> list[Line]:
    """What may be wanted after the verify step under way."""
    lines: list[Line] = []
    for sequence in drafting:
        speculation = sequence.speculation
        if speculation is None or speculation.verifying < 0 or speculation.mode not in (FREE, ENUMERATED):
            continue
        guess, sent = speculation.best(sequence.tokens), speculation.verifying
        left = 0 if guess is None else guess.left(sequence.tokens)
        coming = [] if guess is None else guess.tokens[len(guess.tokens) - left :]
        missing = sent + 1 + speculation.drafts - left  # the drafts being verified, the bonus, and the next drafts
        if missing > 0:
            own = _line(lines, sequence, speculation, coming, missing)
            for line in own:
                line.extends = guess
            lines += own
        if speculation.mode == ENUMERATED and guess is not None:
            wanted = _refutations(state.setup.speculation.breadth, guess, coming[:sent], len(sequence.tokens))
            known = [item.tokens for item in speculation.guesses if item.base == len(sequence.tokens)]
            for hypothesis in wanted:
                if not any(item[: len(hypothesis)] == hypothesis for item in known):
                    lines += _line(lines, sequence, speculation, hypothesis, speculation.drafts)
    return lines


def _refutations(breadth: int, guess: Guess, coming: list[int], length: int) -> list[list[int]]:
    """Where the target is likely to go instead of the drafts being verified: at each of them the next best tokens of the
    draft model, the best of all before the second best, earlier drafts before later ones, which are reached less often."""
    done = length - guess.base
    beside = [guess.alternatives[done + at] if done + at < len(guess.alternatives) else () for at in range(len(coming))]
    ranks = max((len(items) for items in beside), default=0)
    wanted = [[*coming[:at], items[rank]] for rank in range(ranks) for at, items in enumerate(beside) if rank < len(items)]
    return wanted[:breadth]


def _line(others: list[Line], sequence: Sequence, speculation: Speculation, hypothesis: list[int], count: int) -> list[Line]:
    """A row in the slot that knows most of what is to be continued; none where all slots work or are full."""
    tokens = sequence.tokens
    slot = speculation.idle_slot(len(tokens), hypothesis, taken=[line.slot for line in others])
    if slot is None:
        return []
    past = min(slot.common(len(tokens), hypothesis), len(tokens) + len(hypothesis) - 1)
    count = min(count, slot.slot.capacity - len(tokens) - len(hypothesis) + 1)
    if count < 1:
        return []
    feed = (*tokens[past:], *hypothesis[max(0, past - len(tokens)) :])
    return [Line(sequence, speculation, slot, len(tokens), hypothesis, feed, past, count)]


def _enlarge(state: State, runner: RunnerState, sequence: Sequence) -> list[Command]:
    """Slots that the text and its guesses outgrow move to a larger capacity; where there is none for a text that fills its
    own, it goes on without drafts."""
    speculation = sequence.speculation
    if speculation is None:
        return []
    commands: list[Command] = []
    needed = len(sequence.tokens) + 2 * (speculation.drafts + 1)
    for slot in list(speculation.slots):
        if slot.busy or slot.slot.capacity >= needed:
            continue
        larger = runner.pool.room_for(needed) if needed <= runner.pool.capacities[-1] else None
        if larger is None:
            if slot.slot.capacity <= len(sequence.tokens):
                return [*commands, *end(state, sequence)]
            continue
        source, slot.slot = slot.slot, runner.pool.take(larger)
        runner.pool.give(source)
        slot.tail = []
        if slot.agreed:
            move = Move(sequence=sequence.number, source=source, destination=slot.slot, length=slot.agreed)
            commands.append(Send(runner.name, move))
    return commands
