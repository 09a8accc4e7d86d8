"""The scheduler's own state: runners, their slots and kept pages, and everything under way. Mutated only inside `step`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from inlay.scheduler.prefix import PageIndex
from inlay.scheduler.sequence import Sequence
from inlay.scheduler.waiting import Waiting
from inlay.specs.device import SlotAddress
from inlay.specs.schedule import RunnerFacts, SchedulerSetup

PAGE = 16
"""Tokens of a page in the names of kept prefixes, and of what a hand-off carries."""


@dataclass(slots=True)
class InFlight:
    """The batch a runner works on: per sequence the attempt it belongs to and how many rows it adds."""

    batch: int
    phase: str
    rows: dict[int, tuple[int, int]]


class SlotPool:
    """Free slots of one runner, per capacity. Where a capacity has fewer slots than the runner takes sequences, a sequence
    that must grow may find none: the scheduler then takes one from another sequence."""

    def __init__(self, facts: RunnerFacts) -> None:
        rooms = facts.rooms or (facts.slots,) * len(facts.capacities)
        self.capacities = facts.capacities
        self._rooms = dict(zip(facts.capacities, rooms, strict=True))
        self._free = {capacity: set(range(count)) for capacity, count in self._rooms.items()}

    def capacity_for(self, rows: int) -> int | None:
        """The smallest capacity that holds `rows`, or None when none does."""
        return next((capacity for capacity in self.capacities if capacity >= rows), None)

    def room_for(self, rows: int) -> int | None:
        """The smallest capacity that holds `rows` and has a free slot, or None."""
        return next((item for item in self.capacities if item >= rows and self._free[item]), None)

    def take(self, capacity: int) -> SlotAddress:
        """The lowest free slot of a capacity. The caller has checked that there is one."""
        free = self._free[capacity]
        index = min(free)
        free.remove(index)
        return SlotAddress(capacity, index)

    def lowest(self, capacity: int) -> int | None:
        """The lowest free index, or None."""
        return min(self._free[capacity], default=None)

    def give(self, slot: SlotAddress) -> None:
        """Return a slot."""
        self._free[slot.capacity].add(slot.index)

    def rooms(self, capacity: int) -> int:
        """How many slots a capacity has."""
        return self._rooms[capacity]

    def free_count(self) -> int:
        """Free slots over all capacities (for tests of restoration)."""
        return sum(len(free) for free in self._free.values())

    def free_rows(self) -> int:
        """Rows of all free slots together."""
        return sum(capacity * len(free) for capacity, free in self._free.items())


@dataclass(slots=True, eq=False)
class RunnerState:
    """One runner: who is on it, what it works on, and whose turn is next."""

    facts: RunnerFacts
    pool: SlotPool
    pages: PageIndex
    alive: bool = True
    flight: InFlight | None = None
    holders: dict[int, Sequence] = field(default_factory=dict)
    prefilling: deque[Sequence] = field(default_factory=deque)
    decoding: dict[int, dict[int, Sequence]] = field(default_factory=dict)
    last_phase: str = "decode"
    last_capacity: int = 0
    window: int = 0

    @property
    def name(self) -> str:
        """What it is called."""
        return self.facts.runner

    def has_room(self, rows: int) -> bool:
        """Whether one more sequence may hold a slot of so many rows here."""
        return self.alive and len(self.holders) < self.facts.slots and self.pool.room_for(rows) is not None

    def hold(self, sequence: Sequence, rows: int) -> SlotAddress:
        """Give the sequence its slot for `rows` rows; the caller has checked that there is room."""
        capacity = self.pool.room_for(rows)
        if capacity is None:
            raise ValueError(f"no slot of {self.name} holds {rows} rows; admission must have let this sequence wait")
        slot = sequence.slots[self.name] = self.pool.take(capacity)
        self.holders[sequence.number] = sequence
        return slot

    def release(self, sequence: Sequence) -> None:
        """Take everything of the sequence away from this runner; idempotent."""
        slot = sequence.slots.pop(self.name, None)
        if slot is not None:
            self.pool.give(slot)
            self.decoding.get(slot.capacity, {}).pop(sequence.number, None)
        self.holders.pop(sequence.number, None)
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)

    def start_decoding(self, sequence: Sequence) -> None:
        """From now on the sequence takes part in decode batches of its capacity."""
        slot = sequence.slots[self.name]
        self.decoding.setdefault(slot.capacity, {})[sequence.number] = sequence


@dataclass(slots=True, eq=False)
class State:
    """Everything the scheduler knows. Built from the facts of the runners; nothing in it comes from a clock.

    `admissible` is set whenever something has changed that may let a waiting sequence in.
    """

    setup: SchedulerSetup
    runners: dict[str, RunnerState]
    waiting: Waiting = field(default_factory=Waiting)
    sequences: dict[int, Sequence] = field(default_factory=dict)
    next_batch: int = 0
    next_transfer: int = 0
    next_order: int = 0
    admissible: bool = False
    handoffs: dict[int, int] = field(default_factory=dict)

    def salt_of(self, sequence: Sequence) -> str:
        """What separates its kept prefixes from those of other models and tenants."""
        return f"{self.setup.salt}\0{sequence.request.tenant}"


def new_state(setup: SchedulerSetup) -> State:
    """A fresh state over the runners of a setup."""
    facts = setup.facts
    runners = {item.runner: RunnerState(facts=item, pool=SlotPool(item), pages=PageIndex(item.pages)) for item in facts}
    return State(setup=setup, runners=runners)
