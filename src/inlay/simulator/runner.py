"""A runner that takes time and computes nothing: it obeys batches in order and says what a device would, when it would."""

from __future__ import annotations

from dataclasses import dataclass, field

from inlay.errors import InputError
from inlay.simulator.text import BLANK, DraftSlots, Text
from inlay.simulator.timing import Report, Work, draft_steps, reports_of, rounds_until, work_of
from inlay.specs.device import BatchDone, DeviceToEngine, Draft, DraftDone, Guess, Row, RowResult, SlotAddress, Submit
from inlay.specs.latency import LatencyTable
from inlay.specs.sampling import SampledToken
from inlay.specs.schedule import RunnerFacts


@dataclass(slots=True)
class Flight:
    """The batch under way: when it `began`, all it will say, and how much of that was said. A batch that was begun by a
    fast-forward has no `message`, only the `members` of its rows."""

    batch: int
    phase: str
    began: float
    rounds: int
    said: float
    reports: list[Report]
    work: Work | None = None
    message: Submit | Draft | None = None
    members: tuple[int, ...] = ()
    next: int = 0
    tokens: int = 0


@dataclass(slots=True, eq=False)
class Chip:
    """A device: what runs there runs one after another."""

    name: str
    free: float = 0.0
    runners: int = 0


@dataclass(slots=True, eq=False)
class SimulatedRunner:
    """One runner on the virtual clock. `busy` are its seconds at work by phase; `expected` is when it is looked at
    next."""

    index: int
    facts: RunnerFacts
    chip: Chip
    text: Text
    flight: Flight | None = None
    said: float = 0.0
    expected: float | None = None
    alive: bool = True
    busy: dict[str, float] = field(default_factory=dict)
    slots: DraftSlots = field(init=False)
    table: LatencyTable = field(init=False)

    def __post_init__(self) -> None:
        if self.facts.table is None:
            raise InputError(
                f"runner {self.facts.runner!r} has no latency table, expected one: nothing says how long it takes",
                hint="give one by --table, or simulate an event log of `inlay serve --event-log`, which has measured ones",
            )
        self.table = self.facts.table
        self.slots = DraftSlots(self.text)
        self.chip.runners += 1

    @property
    def next_report(self) -> Report:
        """What it will say next."""
        flight = self.flight
        if flight is None:
            raise ValueError(f"{self.facts.runner} is idle")
        return flight.reports[flight.next]

    def submit(self, message: Submit, now: float) -> None:
        """Begin a batch as soon as the message is there and the device free."""
        work = work_of(message, paged=self.facts.paged)
        began = max(now + self.table.overhead / 2, self.chip.free)
        reports = reports_of(work, self.table, began=began, rounds=message.rounds, said=self.said)
        self.begin(Flight(message.batch, message.phase, began, message.rounds, self.said, reports, work, message))

    def draft(self, message: Draft, now: float) -> None:
        """Begin a draft batch."""
        began = max(now + self.table.overhead / 2, self.chip.free)
        steps = draft_steps(message, self.table)
        ended = began + sum(steps)
        reports = [Report(ended + self.table.overhead / 2, began, ended, len(steps), False)]
        self.begin(Flight(message.batch, "draft", began, 1, self.said, reports, None, message))

    def begin(self, flight: Flight) -> None:
        """Take a flight as the one under way."""
        self.flight = flight
        self.chip.free = flight.reports[-1].ended

    def disturb(self, now: float, *, drafts: bool) -> None:
        """Something else has been sent to it: rounds end with the one in progress when it is there; with `drafts`, which an
        interruption is, the steps of a draft batch too."""
        flight, told = self.flight, now + self.table.overhead / 2
        if flight is None or flight.reports[-1].ended <= told:
            return
        if isinstance(flight.message, Draft):
            if not drafts:
                return
            steps = draft_steps(flight.message, self.table)
            ended, done = flight.began, 0
            while done < len(steps) and (done == 0 or ended < told):
                ended, done = ended + steps[done], done + 1
            flight.reports = [Report(ended + self.table.overhead / 2, flight.began, ended, done, False)]
        elif flight.rounds > 1 and flight.work is not None:
            rounds = rounds_until(flight.work, self.table, began=flight.began, rounds=flight.rounds, told=told)
            flight.reports = reports_of(flight.work, self.table, began=flight.began, rounds=rounds, said=flight.said)
            flight.rounds = rounds
        else:
            return
        self.chip.free = flight.reports[-1].ended

    def lose(self) -> None:
        """The device has gone, with what it was at."""
        self.alive, self.flight = False, None

    def count(self, report: Report, phase: str) -> None:
        """Seconds at work."""
        self.busy[phase] = self.busy.get(phase, 0.0) + (report.ended - report.started)

    def say(self) -> DeviceToEngine:
        """The next report as a message; the flight is over with its last one."""
        flight = self.flight
        if flight is None:
            raise ValueError(f"{self.facts.runner} is idle")
        report = flight.reports[flight.next]
        flight.next += 1
        self.said = report.ended
        self.count(report, flight.phase)
        if not report.more:
            self.flight = None
        if isinstance(flight.message, Draft):
            return self._guessed(flight.message, report)
        if isinstance(flight.message, Submit):
            results = [self._result(row, report.steps, flight.tokens) for row in flight.message.rows]
        else:
            blank = (BLANK,) * report.steps
            results = [RowResult(sequence=number, sampled=blank) for number in flight.members]
        flight.tokens += report.steps
        return BatchDone(
            batch=flight.batch,
            results=tuple(results),
            started=report.started,
            ended=report.ended,
            prompt_tokens=sum([row.prompt for row in flight.message.rows]) if isinstance(flight.message, Submit) else 0,
            more=report.more,
            steps=report.steps,
        )

    def _result(self, row: Row, steps: int, before: int) -> RowResult:
        """What a row gave in some rounds of its batch, of which `before` went before."""
        if row.sample is None:
            return RowResult(sequence=row.sequence)
        if row.drafts:
            return RowResult(sequence=row.sequence, sampled=self.text.judge(row))
        if self.text.acceptance is None:
            return RowResult(sequence=row.sequence, sampled=(BLANK,) * steps)
        at = row.past_length + len(row.tokens) + before
        sampled = [SampledToken(token=self.text.token(row.sequence, at + step)) for step in range(steps)]
        return RowResult(sequence=row.sequence, sampled=tuple(sampled))

    def _guessed(self, message: Draft, report: Report) -> DraftDone:
        guesses = []
        for row in message.rows:
            slot = SlotAddress(message.capacity, row.slot)
            past = row.past_length
            right = self.slots.feed(slot, row.sequence, row.tokens, past)
            at = past + len(row.tokens)
            tokens: list[int] = []
            beside: list[tuple[int, ...]] = []
            for step in range(min(row.count, report.steps)):
                if step:
                    right = self.slots.feed(slot, row.sequence, (tokens[-1],), at + step - 1) and right
                token, others = self.text.guess(row.sequence, at + step, right=right, alternatives=message.alternatives)
                tokens.append(token)
                beside.append(others)
            proposals = tuple(((token, 1.0),) for token in tokens) if message.proposals else ()
            guesses.append(
                Guess(
                    sequence=row.sequence,
                    guess=row.guess,
                    tokens=tuple(tokens),
                    alternatives=tuple(beside) if message.alternatives else (),
                    proposals=proposals,
                )
            )
        return DraftDone(
            batch=message.batch, guesses=tuple(guesses), started=report.started, ended=report.ended, steps=report.steps
        )
