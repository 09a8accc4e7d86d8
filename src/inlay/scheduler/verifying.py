"""The target's side of speculation: who may decode now, with which drafts, and what a verdict means. Beginning and end too."""

from __future__ import annotations

from inlay.scheduler.choosing import Rows, choose
from inlay.scheduler.drafting import end, interrupt_if_moot
from inlay.scheduler.ngram import Memory
from inlay.scheduler.sequence import Sequence
from inlay.scheduler.speculating import FORGET, DraftSlot, Guess, Speculation
from inlay.scheduler.state import RunnerState, State
from inlay.specs.choice import Drafting, grade_of
from inlay.specs.device import Proposal
from inlay.specs.schedule import Command, Wake
from inlay.specs.speculation import AUTO, ENUMERATED, FREE, NGRAM, OFF, SYNCHRONOUS

REMEMBER = 0.98
"""What older verdicts of a pair still count at each new one."""

COVERED = 8.0
"""How many steps a guess is taken to be had for half of the time, before any have shown it."""


def begin(state: State, sequence: Sequence, now: float) -> None:
    """Give a sequence that was just placed its way to speculate, if it has one. The draft runner reads the prompt while the
    target does."""
    request = sequence.request
    mode = request.speculation if request.speculation != AUTO else state.setup.speculation.mode
    sequence.silent = ""
    if mode == OFF or request.max_tokens <= 1:
        sequence.silent = "asked" if mode == OFF else "one token"
        return
    setup = state.setup.speculation
    wanted = 1 + (setup.breadth if mode in (ENUMERATED, AUTO) else 0)
    drafter = _drafter(state, sequence) if mode != NGRAM else None
    drafts = request.drafts or setup.drafts
    slots = [] if drafter is None else _take_slots(drafter, len(sequence.tokens) + 2 * (drafts + 1), wanted)
    if not slots and mode not in (NGRAM, AUTO):
        sequence.silent = "no drafter" if drafter is None else "no slots"
        return
    sequence.speculation = speculation = Speculation(asked=mode, mode=mode, drafts=drafts, longest=drafts, slots=slots)
    if mode in (NGRAM, AUTO):
        speculation.memory = Memory()
        speculation.coverage = state.runners[sequence.decode].coverage.share(prior=0.5, weight=COVERED)
    if drafter is not None and slots:
        speculation.drafter = drafter.name
        drafter.drafting[sequence.number] = sequence
    choose(state, sequence, now)
    speculation.began = 0.0  # the first step begins when the prompt is computed


def drafting_of(state: State, sequence: Sequence) -> Drafting:
    """How a sequence that was just placed begins."""
    speculation = sequence.speculation
    if speculation is None:
        return Drafting(mode=OFF, cause=sequence.silent)
    tables = [state.runners[name].facts.table for name in (sequence.decode, speculation.drafter) if name is not None]
    return Drafting(
        mode=speculation.mode,
        drafts=0 if speculation.mode == OFF else speculation.drafts,
        runner=speculation.drafter or "",
        best=speculation.best_mode,
        gain=speculation.best_gain,
        asked=speculation.asked != AUTO,
        grade=grade_of(*(table.grade for table in tables if table is not None)),
    )


def count(sequence: Sequence, sampled: int) -> None:
    """A verify step of a sequence that speculates has given so many tokens."""
    speculation = sequence.speculation
    if speculation is None:
        return
    sequence.modes[speculation.mode] = sequence.modes.get(speculation.mode, 0) + sampled
    if speculation.verifying > 0:
        sequence.drafted += speculation.verifying
        sequence.accepted += sampled - 1


def _take_slots(drafter: RunnerState, rows: int, wanted: int) -> list[DraftSlot]:
    """As many slots of the draft runner as there are for a text of so many rows, up to so many."""
    found: list[DraftSlot] = []
    while len(found) < wanted:
        capacity = drafter.pool.room_for(min(rows, drafter.pool.capacities[-1]))
        if capacity is None or (found and capacity != found[0].slot.capacity):
            break  # guesses of one sequence run together, so they lie in one capacity
        found.append(DraftSlot(drafter.pool.take(capacity)))
    return found


def ready_to_decode(state: State, runner: RunnerState, now: float, commands: list[Command]) -> dict[int, list[Sequence]]:
    """Who takes part in the next step, by capacity. A sequence whose first guess is being made waits for it, where all wait
    (free-running, enumerated) or whoever else is ready (synchronous), but no longer than the patience of the deployment."""
    ready: dict[int, list[Sequence]] = {}
    held: list[Sequence] = []
    waits_for_all = False
    for capacity, members in runner.decoding.items():
        for sequence in members.values():
            if sequence.speculation is not None and _is_awaited(state, sequence):
                held.append(sequence)
                waits_for_all = waits_for_all or sequence.speculation.mode == SYNCHRONOUS
            else:
                ready.setdefault(capacity, []).append(sequence)
    if not held:
        return ready
    if ready and not waits_for_all:
        return _with(runner, ready, held)
    if runner.held_until is None:
        runner.held_until = now + state.setup.speculation.patience
        commands.append(Wake(runner.held_until))
        return {}
    if now < runner.held_until:
        return {}
    for sequence in held:
        if sequence.speculation is not None and sequence.speculation.drafter is not None:
            state.runners[sequence.speculation.drafter].late = True
    return _with(runner, ready, held)


def take_drafts(state: State, sequence: Sequence, capacity: int) -> tuple[list[int], tuple[Proposal, ...]]:
    """The drafts that the next verify step of a sequence is given: what is left of its best guess, where it can matter."""
    speculation = sequence.speculation
    if speculation is None:
        return [], ()
    length, request = len(sequence.tokens), sequence.request
    most = min(
        speculation.drafts,
        state.runners[sequence.decode].facts.chunk - 1,
        capacity - sequence.computed - 1,
        request.max_tokens - sequence.generated - 1,
        state.setup.context - length - 1,
    )
    if speculation.mode == NGRAM and speculation.memory is not None and most > 0:
        found = speculation.memory.guess(sequence.tokens, most)
        speculation.guesses = [Guess(length, found)] if found else []
    guess = None if speculation.mode == OFF else speculation.best(sequence.tokens)
    done = 0 if guess is None else length - guess.base
    drafts = [] if guess is None or most <= 0 else guess.tokens[done : done + most]
    speculation.verifying = len(drafts)
    proposals = tuple(guess.proposals[done : done + len(drafts)]) if guess is not None else ()
    if proposals and not all(proposals):
        drafts = drafts[: proposals.index(())]  # what was not drawn from a distribution that is known cannot be judged
        proposals = proposals[: len(drafts)]
        speculation.verifying = len(drafts)
    return drafts, proposals


def judged(state: State, sequence: Sequence, sampled: int, now: float, rows: Rows) -> list[Command]:
    """A verify step of such rows has given the sequence so many tokens, which it has taken in already."""
    speculation = sequence.speculation
    if speculation is None:
        return []
    sent, speculation.verifying = speculation.verifying, -1
    settled = speculation.mode
    if settled == NGRAM:
        speculation.coverage = FORGET * speculation.coverage + (1.0 - FORGET) * (sent > 0)
        state.runners[sequence.decode].coverage.judge(1, int(sent > 0), forget=REMEMBER)
    speculation.follow(sequence.tokens)
    if sent > 0:
        accepted = sampled - 1
        speculation.judge(sent, accepted)
        if settled == NGRAM or speculation.drafter is None:
            guesser = state.runners[sequence.decode]
        else:
            guesser = state.runners[speculation.drafter]
        guesser.acceptance.judge(sent, accepted, forget=REMEMBER)
    if settled in (FREE, ENUMERATED) and sent >= 0:
        speculation.outcomes = 0.95 * speculation.outcomes + 1.0
        hit = speculation.best(sequence.tokens) is not None
        speculation.hits = 0.95 * speculation.hits + hit
        if settled == ENUMERATED and speculation.drafter is not None:
            state.runners[speculation.drafter].hits.judge(1, int(hit), forget=REMEMBER)
    choose(state, sequence, now, steps=sampled if settled == OFF else 1, rows=rows)
    if speculation.mode != settled:
        state.runners[sequence.decode].changes += 1
    if speculation.drafter is None:
        return []
    return interrupt_if_moot(state.runners[speculation.drafter])


def drafter_lost(state: State, drafter: RunnerState) -> None:
    """Its sequences go on without it."""
    for sequence in list(drafter.drafting.values()):
        end(state, sequence)
    drafter.drafting.clear()


def _is_awaited(state: State, sequence: Sequence) -> bool:
    """Whether the sequence has no guess and its draft runner is at work: it then is, or will be next, at work for it."""
    speculation = sequence.speculation
    if speculation is None or speculation.drafter is None or speculation.mode in (NGRAM, OFF):
        return False
    drafter = state.runners[speculation.drafter]
    if not drafter.alive or drafter.late or drafter.flight is None:
        return False
    return speculation.best(sequence.tokens) is None


def _with(runner: RunnerState, ready: dict[int, list[Sequence]], held: list[Sequence]) -> dict[int, list[Sequence]]:
    for sequence in held:
        ready.setdefault(sequence.slots[runner.name].capacity, []).append(sequence)
    return ready


def _drafter(state: State, sequence: Sequence) -> RunnerState | None:
    """The living draft runner with fewest sequences that has a slot for it, or the one that was asked for."""
    rows = len(sequence.tokens)
    found = [
        item
        for name, item in state.runners.items()
        if "draft" in item.facts.roles
        and item.alive
        and not item.late
        and (sequence.request.draft in (None, name))
        and item.pool.room_for(rows) is not None
    ]
    return min(found, key=lambda item: len(item.drafting), default=None)
