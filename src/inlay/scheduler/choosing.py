"""Which mode and how many drafts for one sequence, from measured acceptance, step times and messages. Pure arithmetic.

Where no times are known, a draft on another device runs ahead, one on the target's own device is waited for. With times, the
mode of the largest predicted gain is taken, and none where it is too small; it is then tried again now and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from inlay.scheduler.sequence import Sequence
from inlay.scheduler.speculating import Speculation
from inlay.scheduler.state import RunnerState, State
from inlay.specs.latency import corrected
from inlay.specs.speculation import (
    AUTO,
    ENUMERATED,
    FREE,
    NGRAM,
    OFF,
    SYNCHRONOUS,
    WORTH_WHILE,
    Speeds,
    expected_tokens,
    gain,
)

ROUNDS = 4
"""How many verify steps a choice holds before it is made again."""
PROBE_TOKENS = 64
"""After so many tokens without drafts one verify step is tried with them."""
LEARN = 0.2
"""Weight of one verify step in how much longer than predicted they take."""
OUTLIER = 3.0
"""A step counts as at most so many times what such steps have taken so far: one long pause is not a lesson."""
STAY = 1.05
"""Another choice must be this much better than the present one."""


class Choice(NamedTuple):
    """A mode with its draft length, its predicted gain over plain decoding as it turned out so far, and the seconds that one
    verify step should take with everything around it, by the tables alone."""

    mode: str
    drafts: int
    gain: float
    seconds: float = 0.0


def choose(state: State, sequence: Sequence, now: float, *, steps: int = 1) -> None:
    """Set how the sequence speculates from now on, where that is left to the scheduler, from what its last steps took too."""
    speculation = sequence.speculation
    if speculation is None or speculation.asked != AUTO:
        return
    target = state.runners[sequence.decode]
    if speculation.expected > 0.0 and speculation.began > 0.0:
        factor = target.pace.get(speculation.mode, 1.0)
        seen = min((now - speculation.began) / steps, OUTLIER * factor * speculation.expected)
        target.pace[speculation.mode] = corrected(factor, predicted=speculation.expected, seen=seen, weight=LEARN)
    speculation.began = now
    if target.facts.table is None:
        speculation.mode = _without_times(state, target, speculation)
        return
    speculation.since += 1
    if speculation.mode == OFF:
        if len(sequence.tokens) < speculation.probe_at:
            return
    elif speculation.since < ROUNDS and speculation.mode != AUTO:
        return
    speculation.since = 0
    best, before = best_choice(state, sequence, target, speculation), speculation.mode
    _take(speculation, best, len(sequence.tokens), probing=before == OFF)
    if speculation.mode != before:
        speculation.began = 0.0  # the first step after a change still bears what the mode before it left behind


def best_choice(state: State, sequence: Sequence, target: RunnerState, speculation: Speculation) -> Choice:
    """The choice of largest predicted gain; mode "off" with gain 1 where none is worth while."""
    present = None
    off, *others = _choices(state, sequence, target, speculation)
    best = max(others, key=lambda choice: choice.gain, default=off)
    speculation.best_mode, speculation.best_gain = best.mode, best.gain
    for choice in (off, *others):
        if (choice.mode, choice.drafts) == (speculation.mode, speculation.drafts):
            present = choice
    if best.gain < WORTH_WHILE:
        return off
    if present is not None and best.gain < present.gain * STAY:
        return present
    return best


def _choices(state: State, sequence: Sequence, target: RunnerState, speculation: Speculation) -> Iterator[Choice]:
    setup = state.setup.speculation
    drafter = None if speculation.drafter is None else state.runners[speculation.drafter]
    capacity = sequence.slots[target.name].capacity if target.name in sequence.slots else target.facts.capacities[0]
    members = max(1, len(target.decoding.get(capacity, ())))
    past = capacity if target.paging is None else len(sequence.tokens)  # a slot is read whole, pages as far as they are full
    pace, plain = target.pace, _speeds(target, None, members, past, 0, rows=0)
    step = plain.plain + plain.plain_trip
    yield Choice(OFF, speculation.longest, 1.0, step)
    turned_out = pace.get(OFF, 1.0)
    if speculation.memory is not None:
        acceptance = speculation.acceptance_of(NGRAM, target.acceptance)
        single = plain.plain + plain.round_trip  # a step without a guess is not one of several in a row either
        alone = step / single
        for drafts in range(1, speculation.longest + 1):
            speeds = _speeds(target, None, members, past, drafts, rows=0)
            share = speculation.coverage
            found = alone + share * (gain(NGRAM, acceptance, drafts, speeds) - alone)
            seconds = single + share * (speeds.verify - speeds.plain)
            yield Choice(NGRAM, drafts, found * turned_out / pace.get(NGRAM, 1.0), seconds)
    if drafter is None or not drafter.alive or drafter.late:
        return
    acceptance = speculation.acceptance_of(SYNCHRONOUS, drafter.acceptance)
    hit = speculation.hits / speculation.outcomes if speculation.outcomes >= 4 else None
    for mode in _modes(target, drafter, speculation):
        rows = members * (1 + (setup.breadth if mode == ENUMERATED else 0))
        for drafts in range(1, speculation.longest + 1):
            speeds = _speeds(target, drafter, members, past, drafts, rows=rows)
            found = gain(mode, acceptance, drafts, speeds, hit=hit if mode == speculation.mode else None)
            seconds = expected_tokens(acceptance, drafts) * step / found
            yield Choice(mode, drafts, found * turned_out / pace.get(mode, 1.0), seconds)


def _modes(target: RunnerState, drafter: RunnerState, speculation: Speculation) -> Iterable[str]:
    """Running ahead pays only where the two do not share a device; outcomes need more slots than one."""
    yield SYNCHRONOUS
    if drafter.facts.device != target.facts.device:
        yield FREE
        if len(speculation.slots) > 1:
            yield ENUMERATED


def _speeds(target: RunnerState, drafter: RunnerState | None, members: int, past: int, drafts: int, *, rows: int) -> Speeds:
    table = target.facts.table
    if table is None:
        raise ValueError(f"{target.name} has no latency table")
    plain = table.seconds(batch=members, width=1, past=past)
    verify = table.seconds(batch=members, width=drafts + 1, past=past)
    ours = None if drafter is None else drafter.facts.table
    if ours is None:
        draft = feed = 0.0 if drafter is None else plain
        trip = 0.0 if drafter is None else table.overhead
    else:
        trip = ours.overhead
        draft = ours.seconds(batch=rows, width=1, past=past)
        feed = ours.per_token * rows * drafts
    return Speeds(
        plain=plain,
        verify=verify,
        draft=draft,
        feed=feed,
        round_trip=table.overhead,
        draft_trip=trip,
        plain_trip=0.0 if target.facts.rounds > 1 else table.overhead,
    )


def _without_times(state: State, target: RunnerState, speculation: Speculation) -> str:
    if speculation.drafter is None:
        return NGRAM
    return FREE if state.runners[speculation.drafter].facts.device != target.facts.device else SYNCHRONOUS


def _take(speculation: Speculation, choice: Choice, length: int, *, probing: bool) -> None:
    if choice.mode == OFF:
        if probing and speculation.tried is not None:  # one step with what was last tried, whatever is predicted
            speculation.mode, speculation.drafts = speculation.tried
            speculation.since, speculation.expected = ROUNDS - 1, 0.0
            return
        speculation.mode, speculation.probe_at = OFF, length + PROBE_TOKENS
        speculation.expected = choice.seconds
        return
    speculation.mode, speculation.drafts = choice.mode, choice.drafts
    speculation.expected = choice.seconds
    speculation.tried = (choice.mode, choice.drafts)
