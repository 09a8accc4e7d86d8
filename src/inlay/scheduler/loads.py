"""How long prompts and tokens take on one runner, beside what it has to do already, from its table. Pure arithmetic.

A runner with prompts and sequences that decode shares its time between them (turns.py): each waits for the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Items

from inlay.scheduler.sequence import DECODE, Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.scheduler.turns import DECODE_TIMES
from inlay.specs.latency import LatencyTable

LEAST_SECONDS = 1e-6
"""No batch takes less: a table of zeros must not divide by zero."""


class Load:
    """What one runner has to do now; seconds throughout. `prompts` with what is left of each, `queue` all of that; `decoders`
    by capacity are `now`, with those that will be `members`. Raises ValueError where the runner has no table."""

    def __init__(self, state: State, runner: RunnerState) -> None:
        if runner.facts.table is None:
            raise ValueError(f"{runner.name} has no latency table")
        self.runner = runner
        self._table: LatencyTable = runner.facts.table
        self.state = state
        lengths = [len(item.tokens) for item in runner.holders.values()]
        self._rows = sum(lengths) // len(lengths) if lengths else runner.facts.capacities[0]
        mine = [item for item in runner.holders.values() if item.decode == runner.name]
        self.decoders = [item for item in mine if item.phase == DECODE]
        self.members = Counter(item.slots[runner.name].capacity for item in mine)
        self.now = Counter(item.slots[runner.name].capacity for item in self.decoders)
        self.prompts = [(item, self.prompt(item.goal() - item.computed, item.goal())) for item in runner.prefilling]
        self.queue = sum(seconds for _, seconds in self.prompts)

    def capacity(self, rows: int) -> int:
        """The capacity that so many rows take."""
        return self.runner.pool.capacity_for(rows) or self.runner.facts.capacities[-1]

    def prompt(self, rows: int, end: int) -> float:
        """To compute the last `rows` of `end` rows of a prompt with nothing else to do."""
        if rows <= 0:
            return 0.0
        past, chunk = self.capacity(end), self.runner.facts.chunk
        chunks, rest = divmod(rows, chunk)
        seconds = chunks * self._batch(1, chunk, past)
        return seconds + (self._batch(1, rest, past) if rest else 0.0)

    def step(self, members: Counter[int]) -> float:
        """Until each of them has its next token: capacities take turns."""
        return sum(self._batch(count, 1, past) for past, count in members.items() if count)

    def ahead(self, rows: int) -> float:
        """Seconds of the prompts that are computed before one of so many rows: the shortest goes first."""
        return sum(seconds for item, seconds in self.prompts if item.goal() - item.computed <= rows)

    def prompt_done(self, work: float, rows: int) -> float:
        """When a prompt of so many rows and seconds that came now would be computed, with all that goes on meanwhile."""
        seconds = self.ahead(rows) + work
        return seconds + self.between(seconds)

    def between(self, work: float) -> float:
        """What decode steps add to so many seconds of prompts: their share of the time while there are any."""
        left = max((self.answer(item) - item.generated for item in self.decoders), default=0)
        return min(DECODE_TIMES * work, left * self.step(self.now))

    def answer(self, sequence: Sequence) -> int:
        """How many tokens its answer will have, at a guess: what it may have, or what answers had so far."""
        return max(sequence.generated + 1, min(sequence.request.max_tokens, round(self.state.answers)), 2)

    def _batch(self, count: int, width: int, past: int) -> float:
        if self.runner.paging is not None:  # a slot is read whole, pages as far as they are full
            past = min(past, self._rows)
        return max(LEAST_SECONDS, self._table.seconds(batch=count, width=width, past=past) + self._table.overhead)


class Unit:
    """What times are counted in: those on the fastest of the runners with nothing else to do."""

    def __init__(self, *, prompts: Items[Load], steps: Items[Load]) -> None:
        self._prompts, self._decoders = prompts, steps
        self._steps: dict[int, float] = {}
        self._whole: dict[int, float] = {}

    def step(self, capacity: int) -> float:
        """Of one token of one sequence."""
        if capacity not in self._steps:
            self._steps[capacity] = min(load.step(Counter([capacity])) for load in self._decoders)
        return self._steps[capacity]

    def prompt(self, rows: int) -> float:
        """Of a whole prompt."""
        if rows not in self._whole:
            self._whole[rows] = min(load.prompt(rows, rows) for load in self._prompts)
        return self._whole[rows]
