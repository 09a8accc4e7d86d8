"""The scheduler's own state: sequences, runners and their slots. Mutated only inside `step`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from inlay.specs.device import SlotAddress
from inlay.specs.schedule import RunnerFacts, SequenceRequest

PREFILL, HANDOFF, DECODE = "prefill", "handoff", "decode"


@dataclass(slots=True, eq=False)
class Sequence:
    """One admitted sequence. `computed` rows of its KV are valid on the runner that works on it now."""

    request: SequenceRequest
    prefill: str
    decode: str
    phase: str = PREFILL
    generated: list[int] = field(default_factory=list)
    computed: int = 0
    attempt: int = 0
    transfer: int | None = None
    arrived: bool = False
    deadline: float = 0.0
    passed_over: int = 0
    slots: dict[str, SlotAddress] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The sequence's id."""
        return self.request.sequence

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.request.prompt) + len(self.generated)

    @property
    def runner(self) -> str:
        """The runner that computes it next."""
        return self.prefill if self.phase == PREFILL else self.decode

    def wanted(self) -> int:
        """Rows of KV that must be computed before decoding: all tokens, less the newest one once one is sampled."""
        return self.length - 1 if self.generated else self.length

    def token(self, position: int) -> int:
        """The id at a position of prompt plus answer."""
        prompt = self.request.prompt
        return prompt[position] if position < len(prompt) else self.generated[position - len(prompt)]


@dataclass(slots=True)
class InFlight:
    """The batch a runner works on: per sequence the attempt it belongs to and how many rows it adds."""

    batch: int
    phase: str
    rows: dict[int, tuple[int, int]]


class SlotPool:
    """Free slots of one runner, per capacity. Each capacity has as many slots as the runner takes sequences,
    so a sequence that was admitted can always grow: no deadlock, no preemption."""

    def __init__(self, facts: RunnerFacts) -> None:
        self._facts = facts
        self._free = {capacity: set(range(facts.slots)) for capacity in facts.capacities}

    def capacity_for(self, rows: int) -> int | None:
        """The smallest capacity that holds `rows`, or None when none does."""
        return next((capacity for capacity in self._facts.capacities if capacity >= rows), None)

    def take(self, capacity: int) -> SlotAddress:
        """The lowest free slot of a capacity. The caller has checked that the runner has room."""
        index = min(self._free[capacity])
        self._free[capacity].remove(index)
        return SlotAddress(capacity, index)

    def lowest(self, capacity: int) -> int | None:
        """The lowest free index, or None."""
        return min(self._free[capacity], default=None)

    def give(self, slot: SlotAddress) -> None:
        """Return a slot."""
        self._free[slot.capacity].add(slot.index)

    def free_count(self) -> int:
        """Free slots over all capacities (for tests of restoration)."""
        return sum(len(free) for free in self._free.values())


@dataclass(slots=True, eq=False)
class RunnerState:
    """One runner: who is on it, what it works on, and whose turn is next."""

    facts: RunnerFacts
    pool: SlotPool
    alive: bool = True
    flight: InFlight | None = None
    holders: set[int] = field(default_factory=set)
    prefilling: deque[int] = field(default_factory=deque)
    decoding: dict[int, dict[int, int]] = field(default_factory=dict)
    last_phase: str = DECODE
    last_capacity: int = 0
    window: int = 0

    def has_room(self) -> bool:
        """Whether one more sequence may hold slots here."""
        return self.alive and len(self.holders) < self.facts.slots

    def hold(self, sequence: Sequence, rows: int) -> None:
        """Give the sequence its slot for `rows` rows (the caller has checked room and length)."""
        capacity = self.pool.capacity_for(rows)
        assert_capacity(capacity, rows, self.facts.runner)
        sequence.slots[self.facts.runner] = self.pool.take(capacity or 0)
        self.holders.add(sequence.number)

    def release(self, sequence: Sequence) -> None:
        """Take everything of the sequence away from this runner; idempotent."""
        slot = sequence.slots.pop(self.facts.runner, None)
        if slot is not None:
            self.pool.give(slot)
            self.decoding.get(slot.capacity, {}).pop(sequence.number, None)
        self.holders.discard(sequence.number)
        if sequence.number in self.prefilling:
            self.prefilling.remove(sequence.number)

    def start_decoding(self, sequence: Sequence) -> None:
        """From now on the sequence takes part in decode batches of its capacity."""
        slot = sequence.slots[self.facts.runner]
        self.decoding.setdefault(slot.capacity, {})[sequence.number] = slot.index


def assert_capacity(capacity: int | None, rows: int, runner: str) -> None:
    """Raise ValueError when a sequence got past admission without a capacity that holds it: a fault of ours."""
    if capacity is None:
        raise ValueError(f"no capacity of {runner} holds {rows} rows; admission must have refused this sequence")


@dataclass(slots=True, eq=False)
class State:
    """Everything the scheduler knows. Built from the facts of the runners; nothing in it comes from a clock."""

    runners: dict[str, RunnerState]
    context: int
    waiting_limit: int = 1024
    lease: float = 10.0
    waiting: deque[SequenceRequest] = field(default_factory=deque)
    sequences: dict[int, Sequence] = field(default_factory=dict)
    next_batch: int = 0
    next_transfer: int = 0
    handoffs: dict[int, int] = field(default_factory=dict)


def new_state(facts: tuple[RunnerFacts, ...], *, context: int, waiting_limit: int = 1024, lease: float = 10.0) -> State:
    """A fresh state over these runners; `lease` in seconds, `context` the most tokens of one sequence."""
    runners = {item.runner: RunnerState(facts=item, pool=SlotPool(item)) for item in facts}
    return State(runners=runners, context=context, waiting_limit=waiting_limit, lease=lease)
