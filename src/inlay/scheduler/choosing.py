"""Which mode and how many drafts for sequences that decode together. Pure arithmetic on acceptance, step times and messages.

Where no times are known, a draft on another device runs ahead, one on the target's own device is waited for. With times, the
mode of the largest predicted gain is taken, and none where it is too small; it is then tried again now and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import NamedTuple

from inlay.scheduler.sequence import Sequence
from inlay.scheduler.speculating import Speculation
from inlay.scheduler.state import RunnerState, State
from inlay.specs.speculation import (
    AUTO,
    ENUMERATED,
    FREE,
    NGRAM,
    OFF,
    SYNCHRONOUS,
    USUAL_HITS,
    WORTH_WHILE,
    Speeds,
    expected_tokens,
    gain,
)

ROUNDS = 4
"""How many verify steps a choice holds before it is made again."""
PROBE_TOKENS = 64
"""After so many tokens without drafts one verify step is tried with them; after twice as many each time it was in vain."""
PROBE_DOUBLINGS = 5
EXPECTED, FIRST = 0.5, 4.0
"""Which share of drafts a pair is taken to accept before it has shown any, and how many drafts that counts for."""
MOST = 12.0
"""How many drafts that of the pair counts for at most in a sequence, which remembers some 20 of its own."""
STAY = 1.05
"""Another choice must be this much better than the present one."""


class Choice(NamedTuple):
    """A mode with its draft length, its predicted gain over plain decoding as it turned out so far, and the seconds that one
    verify step should take with everything around it, by the tables alone."""

    mode: str
    drafts: int
    gain: float
    seconds: float = 0.0


class Rows(NamedTuple):
    """Of one step: tokens of its `widest` row, and whether it was one of several `in_a_row` where its runner does that."""

    widest: int
    in_a_row: bool

    def tell(self, speculation: Speculation) -> bool:
        """Whether the step tells of the mode of this sequence: not where others held it up, with wider rows or by drafts."""
        if speculation.mode == OFF:
            return self.widest == 1 and self.in_a_row
        return self.widest <= speculation.drafts + 1


def choose(state: State, sequence: Sequence, now: float, *, steps: int = 1, rows: Rows | None = None) -> None:
    """Set how the sequence speculates from now on, where that is left to the scheduler, from what its last steps took too,
    of which the last had such `rows`."""
    speculation = sequence.speculation
    if speculation is None or speculation.asked != AUTO:
        return
    target = state.runners[sequence.decode]
    if speculation.expected > 0.0 and speculation.began > 0.0 and (rows is None or rows.tell(speculation)):
        seen = (now - speculation.began) / steps
        target.pace.learn(speculation.mode, predicted=speculation.expected, seen=seen)
    speculation.began = now
    if target.facts.table is None:
        speculation.mode = _without_times(state, target, speculation)
        return
    speculation.since += 1
    before = speculation.mode
    if before == OFF:
        if len(sequence.tokens) < speculation.probe_at:
            return
    elif before != AUTO and speculation.since < ROUNDS:
        return
    beside = _beside(target, sequence)
    if before == AUTO and beside:
        _join(sequence, beside[0])
        return
    best, most = best_choice(state, sequence, target, speculation)
    if best.mode != OFF:
        target.pace.in_vain = 0
    elif before != OFF:
        target.pace.in_vain = min(target.pace.in_vain + 1, PROBE_DOUBLINGS)
    pause = PROBE_TOKENS * (1 + len(beside)) << target.pace.in_vain  # a probe holds up all that decode here
    probing = before == OFF and best.mode == OFF
    for item in (sequence, *beside):
        _take(item, most if probing else best, pause=pause, probing=probing)


def _beside(target: RunnerState, sequence: Sequence) -> list[Sequence]:
    """Those that decode with a sequence and leave the choice to the scheduler too: a step takes as long as its widest row, and
    waits for the slowest draft, so that one choice is made for all of them."""
    return [
        other
        for members in target.decoding.values()
        for other in members.values()
        if other is not sequence and other.speculation is not None and other.speculation.asked == AUTO
    ]


def _join(sequence: Sequence, other: Sequence) -> None:
    """Begin as one does that decodes already."""
    own, theirs = sequence.speculation, other.speculation
    if own is None or theirs is None:
        return
    own.mode, own.drafts = _able(own, theirs.mode, theirs.drafts)
    own.since, own.expected = theirs.since, theirs.expected
    own.best_mode, own.best_gain = theirs.best_mode, theirs.best_gain
    own.probe_at = len(sequence.tokens) + max(0, theirs.probe_at - len(other.tokens))


def _able(speculation: Speculation, mode: str, drafts: int) -> tuple[str, int]:
    """The mode and draft length, or what comes nearest of what this sequence can do."""
    if mode not in (OFF, NGRAM) and not speculation.slots:
        mode = OFF
    elif mode == ENUMERATED and len(speculation.slots) < 2:
        mode = FREE
    return mode, min(drafts, speculation.longest)


def best_choice(state: State, sequence: Sequence, target: RunnerState, speculation: Speculation) -> tuple[Choice, Choice]:
    """The choice of largest predicted gain, mode "off" with gain 1 where none is worth while; and the best one with drafts,
    worth while or not."""
    present = None
    off, *others = _choices(state, sequence, target, speculation)
    best = max(others, key=lambda choice: choice.gain, default=off)
    speculation.best_mode, speculation.best_gain = best.mode, best.gain
    for choice in (off, *others):
        if (choice.mode, choice.drafts) == (speculation.mode, speculation.drafts):
            present = choice
    if best.gain < WORTH_WHILE * (STAY if speculation.mode == OFF or speculation.probing else 1.0):
        return off, best
    if present is not None and best.gain < present.gain * STAY:
        return present, best
    return best, best


def _choices(state: State, sequence: Sequence, target: RunnerState, speculation: Speculation) -> Iterator[Choice]:
    setup = state.setup.speculation
    drafter = None if speculation.drafter is None else state.runners[speculation.drafter]
    capacity = sequence.slots[target.name].capacity if target.name in sequence.slots else target.facts.capacities[0]
    members = max(1, len(target.decoding.get(capacity, ())))
    past = capacity if target.paging is None else len(sequence.tokens)  # a slot is read whole, pages as far as they are full
    pace, plain = target.pace, _speeds(target, None, members, past, 0, rows=0)
    step = plain.plain + plain.plain_trip
    yield Choice(OFF, speculation.longest, 1.0, step)
    turned_out = pace.of(OFF)
    if speculation.memory is not None:
        acceptance = _acceptance(target, sequence, NGRAM, target)
        single = plain.plain + plain.round_trip  # a step without a guess is not one of several in a row either
        alone = step / single
        for drafts in range(1, speculation.longest + 1):
            speeds = _speeds(target, None, members, past, drafts, rows=0)
            share = speculation.coverage
            found = alone + share * (gain(NGRAM, acceptance, drafts, speeds) - alone)
            seconds = single + share * (speeds.verify - speeds.plain)
            yield Choice(NGRAM, drafts, found * turned_out / pace.of(NGRAM), seconds)
    if drafter is None or not drafter.alive or drafter.late:
        return
    acceptance = _acceptance(target, sequence, SYNCHRONOUS, drafter)
    hit = speculation.hits / speculation.outcomes if speculation.outcomes >= 4 else None
    usual = drafter.hits.share(prior=USUAL_HITS, weight=FIRST)
    for mode in _modes(target, drafter, speculation):
        rows = members * (1 + (setup.breadth if mode == ENUMERATED else 0))
        for drafts in range(1, speculation.longest + 1):
            speeds = _speeds(target, drafter, members, past, drafts, rows=rows)
            found = gain(mode, acceptance, drafts, speeds, hit=hit if hit is not None and mode == speculation.mode else usual)
            seconds = expected_tokens(acceptance, drafts) * step / found
            yield Choice(mode, drafts, found * turned_out / pace.of(mode), seconds)


def _acceptance(target: RunnerState, sequence: Sequence, mode: str, guesser: RunnerState) -> float:
    """Of all that the choice is made for."""
    prior = guesser.acceptance.share(prior=EXPECTED, weight=FIRST)
    weight = min(MOST, FIRST + guesser.acceptance.judged)
    members = [item.speculation for item in (sequence, *_beside(target, sequence))]
    return fmean([item.acceptance_of(mode, prior, weight) for item in members if item is not None])


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


def _take(sequence: Sequence, choice: Choice, *, pause: int, probing: bool) -> None:
    """Do as chosen; when `probing`, for one step."""
    speculation = sequence.speculation
    if speculation is None:
        return
    before, speculation.since, speculation.expected = speculation.mode, 0, choice.seconds
    speculation.probing = probing
    if choice.mode == OFF:
        speculation.mode, speculation.probe_at = OFF, len(sequence.tokens) + pause
    else:
        speculation.mode, speculation.drafts = _able(speculation, choice.mode, choice.drafts)
    if probing:
        speculation.since, speculation.expected = ROUNDS - 1, 0.0
    if speculation.mode != before:
        speculation.began = 0.0  # the first step after a change still bears what the mode before it left behind
