"""The scheduler's own state: runners, their slots and kept pages, and everything under way. Mutated only inside `step`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from inlay.scheduler.acceptance import Acceptance, Pace
from inlay.scheduler.line import Line
from inlay.scheduler.paging import PagePool
from inlay.scheduler.prefix import PageIndex
from inlay.scheduler.sequence import Sequence
from inlay.scheduler.slots import SlotPool
from inlay.scheduler.waiting import Waiting
from inlay.specs.device import SlotAddress
from inlay.specs.schedule import RunnerFacts, SchedulerSetup

EXPECTED_ANSWER = 64.0
"""Tokens that an answer is taken to have while none has ended."""
ANSWER_WEIGHT = 0.1
"""Of one answer that has ended in how long they are expected to be."""


@dataclass(slots=True)
class InFlight:
    """The batch a runner works on: per sequence the attempt it belongs to and how many rows it adds, or the lines of a
    draft batch, `stopped` where it was told to end early. One of several `rounds` was begun when the runner's `changes` were
    so many."""

    batch: int
    phase: str
    rows: dict[int, tuple[int, int]]
    lines: list[Line] = field(default_factory=list)
    stopped: bool = False
    rounds: int = 1
    changes: int = 0


@dataclass(slots=True, eq=False)
class RunnerState:
    """One runner: who is on it, what it works on, and whose turn is next. `paging` are the pages of a paged one.

    `drafting` are the sequences that it drafts for; `late` a draft runner that a verify step has waited for in vain;
    `held_until` when a runner that waits for drafts goes on without them; `acceptance` of a draft runner's guesses, or on
    other runners of guesses from their own text; `coverage` of steps for which the own text had a guess; `hits` of outcomes
    that were drafted ahead; `pace` of verify steps by mode; `changes` how often a sequence came, began
    to decode or went; `next_chunk` when a prompt may have its turn again while others decode.
    """

    facts: RunnerFacts
    pool: SlotPool
    pages: PageIndex
    paging: PagePool | None = None
    alive: bool = True
    flight: InFlight | None = None
    holders: dict[int, Sequence] = field(default_factory=dict)
    prefilling: deque[Sequence] = field(default_factory=deque)
    decoding: dict[int, dict[int, Sequence]] = field(default_factory=dict)
    drafting: dict[int, Sequence] = field(default_factory=dict)
    late: bool = False
    held_until: float | None = None
    acceptance: Acceptance = field(default_factory=Acceptance)
    coverage: Acceptance = field(default_factory=Acceptance)
    hits: Acceptance = field(default_factory=Acceptance)
    pace: Pace = field(default_factory=Pace)
    last_phase: str = "decode"
    last_capacity: int = 0
    window: int = 0
    changes: int = 0
    next_chunk: float = 0.0

    @property
    def name(self) -> str:
        """What it is called."""
        return self.facts.runner

    @property
    def members(self) -> int:
        """Sequences that decode here."""
        return sum(len(items) for items in self.decoding.values())

    @property
    def usage(self) -> float:
        """The share of its sequences, or of its pages, that is taken."""
        return len(self.holders) / self.facts.slots if self.paging is None else self.paging.used / self.paging.count

    def has_room(self, rows: int, *, shared: int = 0) -> bool:
        """Whether one more sequence may hold so many rows here. On a paged runner `shared` of its pages are in use already,
        and each sequence that decodes is left a page to grow into."""
        if not self.alive or len(self.holders) >= self.facts.slots:
            return False
        if self.paging is None:
            return self.pool.room_for(rows) is not None
        return self.paging.pages_for(rows) - shared + self.members <= self.paging.available

    def hold(self, sequence: Sequence, rows: int, *, shared: Items[int] = ()) -> SlotAddress:
        """Give the sequence its slot for `rows` rows, or its pages after those that it shares; the caller has checked that
        there is room."""
        capacity = self.pool.room_for(rows)
        if capacity is None:
            raise ValueError(f"no slot of {self.name} holds {rows} rows; admission must have let this sequence wait")
        slot = sequence.slots[self.name] = self.pool.take(capacity)
        self.holders[sequence.number] = sequence
        self.changes += 1
        if self.paging is not None:
            sequence.tables[self.name] = [*shared, *self.paging.take(self.paging.pages_for(rows) - len(shared))]
        return slot

    def release(self, sequence: Sequence) -> None:
        """Take everything of the sequence away from this runner; idempotent."""
        self.changes += 1
        slot = sequence.slots.pop(self.name, None)
        if slot is not None:
            self.pool.give(slot)
            self.decoding.get(slot.capacity, {}).pop(sequence.number, None)
        if self.paging is not None:
            self.paging.give(sequence.tables.pop(self.name, ()))
        self.holders.pop(sequence.number, None)
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)

    def start_decoding(self, sequence: Sequence) -> None:
        """From now on the sequence takes part in decode batches of its capacity."""
        slot = sequence.slots[self.name]
        self.decoding.setdefault(slot.capacity, {})[sequence.number] = sequence
        self.changes += 1


@dataclass(slots=True, eq=False)
class State:
    """Everything the scheduler knows. Built from the facts of the runners; nothing in it comes from a clock.

    `admissible` is set whenever something has changed that may let a waiting sequence in; `answers` is how many tokens
    answers had, the later ones counting more; `shunned` until when no hand-off is tried from a runner to another.
    """

    setup: SchedulerSetup
    runners: dict[str, RunnerState]
    drafters: tuple[RunnerState, ...] = ()
    waiting: Waiting = field(default_factory=Waiting)
    sequences: dict[int, Sequence] = field(default_factory=dict)
    next_batch: int = 0
    next_transfer: int = 0
    next_order: int = 0
    admissible: bool = False
    answers: float = EXPECTED_ANSWER
    handoffs: dict[int, int] = field(default_factory=dict)
    shunned: dict[tuple[str, str], float] = field(default_factory=dict)

    def answered(self, tokens: int) -> None:
        """An answer has ended with so many."""
        self.answers += ANSWER_WEIGHT * (tokens - self.answers)

    def salt_of(self, sequence: Sequence) -> str:
        """What separates its kept prefixes from those of other models and tenants."""
        return f"{self.setup.salt}\0{sequence.request.tenant}"


def new_state(setup: SchedulerSetup) -> State:
    """A fresh state over the runners of a setup. Draft runners come first: what they begin, verify steps may wait for."""
    facts = sorted(setup.facts, key=lambda item: "draft" not in item.roles)
    runners = {item.runner: _new_runner(item) for item in facts}
    drafters = tuple(item for item in runners.values() if "draft" in item.facts.roles)
    return State(setup=setup, runners=runners, drafters=drafters)


def _new_runner(facts: RunnerFacts) -> RunnerState:
    paging = PagePool(facts.pages, page=facts.page) if facts.paged else None
    return RunnerState(facts=facts, pool=SlotPool(facts), pages=PageIndex(0 if facts.paged else facts.pages), paging=paging)
