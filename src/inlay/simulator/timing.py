"""How long a batch takes by its runner's LatencyTable, and when the engine hears of it. Pure arithmetic on virtual seconds."""

from __future__ import annotations

from typing import NamedTuple

from inlay.specs.device import Draft, Submit
from inlay.specs.latency import LatencyTable
from inlay.specs.rounds import is_held


class Report(NamedTuple):
    """What a runner says of `steps` rounds that ran from `started` to `ended`; the engine hears it at `heard`. `more`: another
    round of the batch has begun."""

    heard: float
    started: float
    ended: float
    steps: int
    more: bool


class Work(NamedTuple):
    """One batch as the table sees it: `batch` rows of `width` tokens over `past` rows of KV, which grow by `growth` a round.
    A runner that keeps slots pads to the widest row and reads its whole bucket; one that keeps pages computes and reads what
    is there: both are then means."""

    batch: int
    width: float
    past: float
    growth: int = 0

    def seconds(self, table: LatencyTable, *, done: int = 0) -> float:
        """Time of the round after so many."""
        past = self.past + self.growth * done
        return table.fixed + self.batch * (table.per_row + table.per_token * self.width + table.per_past * past)


def work_of(message: Submit, *, paged: bool) -> Work:
    """What a batch asks of its runner. Slots that its range covers without a row are computed with the rest."""
    if not paged:
        return Work(message.count, message.width, message.capacity)
    rows, size = message.rows, len(message.rows)
    return Work(size, sum([len(row.tokens) for row in rows]) / size, sum([row.past_length for row in rows]) / size, 1)


def draft_steps(message: Draft, table: LatencyTable) -> list[float]:
    """Seconds of each step of a draft batch: the first one feeds what the slots lack, each other one token a row."""
    width = max(len(row.tokens) for row in message.rows)
    steps = max([1, *(row.count for row in message.rows)])
    first, later = Work(message.count, width, message.capacity), Work(message.count, 1, message.capacity)
    return [first.seconds(table), *(later.seconds(table) for _ in range(steps - 1))]


def reports_of(work: Work, table: LatencyTable, *, began: float, rounds: int, said: float) -> list[Report]:
    """What is said of a batch of so many rounds that begins then, if nothing comes between; `said` is the end of the last
    round that was reported before."""
    away = table.overhead / 2
    if rounds == 1:
        ended = began + work.seconds(table)
        return [Report(ended + away, began, ended, 1, False)]
    found: list[Report] = []
    since, held, started = began, 0, began
    for done in range(rounds):
        ended = started + work.seconds(table, done=done)
        held += 1
        more = done + 1 < rounds
        if not is_held(started, ended, said=said, more=more):
            found.append(Report(ended + away, since, ended, held, more))
            said, since, held = ended, ended, 0
        started = ended
    return found


def rounds_until(work: Work, table: LatencyTable, *, began: float, rounds: int, told: float) -> int:
    """How many rounds are run of a batch whose device is told to stop at this time: the one in progress is ended."""
    ended = began
    for done in range(rounds):
        ended += work.seconds(table, done=done)
        if ended >= told:
            return done + 1
    return rounds
