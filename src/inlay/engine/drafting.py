"""A draft batch on its device: several steps of a small model in a row, each fed with what the last one chose.

Between two steps the device may be told to stop. Called by the device process; the steps run on the generic runner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from inlay.engine.proposing import Proposed, propose
from inlay.engine.runner import Runner
from inlay.specs.device import BatchFailed, Draft, DraftDone, DraftRow, Guess, Row, Submit

DRAFT_PHASE = "draft"


@dataclass(slots=True)
class _Line:
    """One row of the batch: what it was asked and what it has guessed so far. Its next step feeds `tokens`."""

    asked: DraftRow
    tokens: tuple[int, ...]
    past: int
    guesses: list[Proposed] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it wants another step."""
        return not self.guesses or len(self.guesses) < self.asked.count


class Drafter:
    """At most one draft batch at a time. A row that is done sits idle in the steps of the others."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._batch: Draft | None = None
        self._lines: list[_Line] = []
        self._started = 0.0
        self._steps = 0
        self._stopped = False

    def submit(self, batch: Draft) -> None:
        """Begin with feeding what each row has to catch up with."""
        self._batch, self._started, self._steps, self._stopped = batch, monotonic(), 0, False
        self._lines = [_Line(row, row.tokens, row.past_length) for row in batch.rows]
        self._step(batch)

    def interrupt(self, number: int) -> None:
        """Stop after the step in progress, if this batch is the one under way."""
        if self._batch is not None and self._batch.batch == number:
            self._stopped = True

    def poll(self) -> DraftDone | BatchFailed | None:
        """The end of the batch, once; None while it goes on. Begins the next step when one has ended."""
        batch = self._batch
        if batch is None:
            return None
        outcome = self._runner.poll()
        if outcome is None:
            return None
        if isinstance(outcome, BatchFailed):
            self._batch = None
            return outcome
        self._steps += 1
        for line in self._lines:
            if line.alive:
                self._choose(batch, line)
        if not self._stopped and any(line.alive for line in self._lines):
            self._step(batch)
            return None
        self._batch = None
        return DraftDone(
            batch=batch.batch,
            guesses=tuple(_guess(line) for line in self._lines),
            started=self._started,
            ended=monotonic(),
            steps=self._steps,
        )

    def _step(self, batch: Draft) -> None:
        """Feed every row that still guesses. Rows are numbered by their guess: one sequence may have several."""
        rows = tuple(
            Row(sequence=line.asked.guess, slot=line.asked.slot, tokens=line.tokens, past_length=line.past)
            for line in self._lines
            if line.alive
        )
        width = max(len(row.tokens) for row in rows)
        self._runner.submit(
            Submit(
                batch=batch.batch,
                phase=DRAFT_PHASE,
                capacity=batch.capacity,
                first=batch.first,
                count=batch.count,
                width=width,
                rows=rows,
            )
        )

    def _choose(self, batch: Draft, line: _Line) -> None:
        """Take the step's result in: the guess at the next position becomes what is fed next."""
        line.past += len(line.tokens)
        if line.asked.count == 0:
            line.guesses.append(Proposed(-1))  # it only had to catch up
            return
        proposed = propose(
            self._runner.logits_of(line.asked.guess),
            line.asked.sample,
            position=line.past,
            alternatives=batch.alternatives,
            truncate=batch.proposals,
        )
        line.guesses.append(proposed)
        line.tokens = (proposed.token,)


def _guess(line: _Line) -> Guess:
    if line.asked.count == 0:
        return Guess(sequence=line.asked.sequence, guess=line.asked.guess)
    proposals = tuple(item.proposal for item in line.guesses)
    return Guess(
        sequence=line.asked.sequence,
        guess=line.asked.guess,
        tokens=tuple(item.token for item in line.guesses),
        alternatives=tuple(item.alternatives for item in line.guesses),
        proposals=proposals if any(proposals) else (),
    )
