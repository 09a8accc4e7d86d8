"""Decode steps in a row: what the next round of a batch is, from what the last one gave, and when rounds are worth a message.
Pure; for the device process and its like in the simulator.
"""

from __future__ import annotations

import msgspec

from inlay.specs.device import BatchDone, RowResult, Submit

ROUNDS = 16
"""Decode steps in a row of a runner of one process. KV that comes from others and questions of life wait for their end."""
REPORT_SECONDS = 0.008
"""Rounds that end within so much time are reported together: where a step takes a millisecond, a message is dear."""


def following(batch: Submit, done: BatchDone) -> Submit | None:
    """The rounds that are left of a batch after one of them; None after the last one, and after a row's end token."""
    if batch.rounds <= 1:
        return None
    given = {result.sequence: result.sampled for result in done.results}
    rows = []
    for row in batch.rows:
        sampled = given[row.sequence]
        if len(sampled) != 1 or sampled[0].token in row.ends:
            return None
        past = row.past_length + len(row.tokens)
        rows.append(msgspec.structs.replace(row, tokens=(sampled[0].token,), past_length=past, prompt=0))
    return msgspec.structs.replace(batch, rows=tuple(rows), rounds=batch.rounds - 1, width=1)


def is_held(started: float, ended: float, *, said: float, more: bool) -> bool:
    """Whether a round that has ended waits to be reported with the next one: where that will be over soon enough after the
    last report, which was `said` then."""
    return more and 2 * ended - started - said < REPORT_SECONDS


class Unsaid:
    """Rounds that have run and are not reported yet."""

    def __init__(self) -> None:
        self._held: list[BatchDone] = []
        self._said = 0.0

    def take(self, done: BatchDone, *, more: bool) -> BatchDone | None:
        """What to report now that one more round has run; None where the next one will be over soon enough."""
        self._held.append(done)
        if is_held(done.started, done.ended, said=self._said, more=more):
            return None
        return self.give(more=more)

    def give(self, *, more: bool) -> BatchDone | None:
        """All that is held, as one report; None where nothing is."""
        held, self._held = self._held, []
        if not held:
            return None
        self._said = held[-1].ended
        results = (
            held[-1].results if len(held) == 1 else tuple(map(_joined, zip(*(done.results for done in held), strict=True)))
        )
        return msgspec.structs.replace(held[-1], started=held[0].started, results=results, more=more, steps=len(held))


def _joined(results: tuple[RowResult, ...]) -> RowResult:
    """One row's tokens of several rounds."""
    return msgspec.structs.replace(results[-1], sampled=tuple(token for result in results for token in result.sampled))
