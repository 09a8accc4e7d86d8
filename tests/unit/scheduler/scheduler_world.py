"""A world of devices made of lists: they obey the scheduler and check every row against what the slot really holds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from inlay.scheduler import State, step
from inlay.specs.device import (
    AbortTransfer,
    BatchDone,
    DeviceToEngine,
    Draft,
    DraftDone,
    ExpectTransfer,
    Fill,
    Guess,
    Interrupt,
    Keep,
    KvArrived,
    KvFailed,
    Move,
    OpenTransfer,
    Row,
    RowResult,
    SlotAddress,
    Submit,
)
from inlay.specs.rounds import Unsaid, following
from inlay.specs.sampling import SampledToken, Sampling
from inlay.specs.schedule import (
    Answered,
    Arrived,
    Cancelled,
    Emit,
    Event,
    Fail,
    Finish,
    Lost,
    Placed,
    Preempted,
    Recompute,
    RunnerFacts,
    Send,
    SequenceRequest,
    Tick,
    Wake,
)

VOCABULARY = 50


def next_token(content: list[int]) -> int:
    """What the make-believe model says after these tokens: depends on every one of them."""
    value = 7
    for token in content:
        value = (value * 31 + token + 1) % 1000003
    return value % VOCABULARY


def answer(prompt: tuple[int, ...], count: int) -> list[int]:
    content = list(prompt)
    for _ in range(count):
        content.append(next_token(content))
    return content[len(prompt) :]


def facts_page(facts: RunnerFacts) -> int:
    assert facts.page > 0
    return facts.page


def verdict(content: list[int], row: Row) -> tuple[SampledToken, ...]:
    """What the make-believe model says after the row's last token that is no draft, and after each draft it agrees with."""
    found: list[SampledToken] = []
    for at in range(row.drafts + 1):
        seen = content[: len(content) - row.drafts + at]
        found.append(SampledToken(token=next_token(seen)))
        if at < row.drafts and content[len(seen)] != found[-1].token:
            break
    return tuple(found)


@dataclass
class Delivery:
    """The pages of a transfer, as the destination finds them in its channel."""

    transfer: int


@dataclass
class World:
    state: State
    random: random.Random
    kv_fault_share: float = 0.0
    kv_fault: str = "checksum"
    now: float = 0.0
    slots: dict[tuple[str, SlotAddress], list[int]] = field(default_factory=dict)
    inbox: dict[str, list[object]] = field(default_factory=dict)
    pending: list[tuple[str, object]] = field(default_factory=list)
    exported: dict[int, list[int]] = field(default_factory=dict)
    destinations: dict[int, str] = field(default_factory=dict)
    expected: dict[int, ExpectTransfer] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    ended: dict[int, Finish | Fail] = field(default_factory=dict)
    prompt_rows: dict[str, int] = field(default_factory=dict)
    recomputed: list[Recompute] = field(default_factory=list)
    preempted: list[Preempted] = field(default_factory=list)
    pages: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    placed: dict[int, Placed] = field(default_factory=dict)
    wakes: list[float] = field(default_factory=list)
    interrupted: set[tuple[str, int]] = field(default_factory=set)
    drafted: int = 0
    rounds: int = 0
    unsaid: dict[str, Unsaid] = field(default_factory=dict)
    agreement: float = 0.7
    sequences: int = 0
    cached: int = 0
    batches: list[Submit] = field(default_factory=list)

    def feed(self, event: Event) -> None:
        for command in step(self.state, event, self.now):
            match command:
                case Send(runner=runner, message=message):
                    self.tell(runner, message)
                case Emit(sequence=number, sampled=sampled):
                    self.emitted(number, sampled.token)
                case Finish() | Fail():
                    assert command.sequence not in self.ended
                    self.ended[command.sequence] = command
                case Placed():
                    self.placed[command.sequence] = command
                    self.cached += command.cached
                case Recompute():
                    self.recomputed.append(command)
                case Wake(at=at):
                    self.wakes.append(at)
                case Preempted():
                    self.preempted.append(command)

    def emitted(self, number: int, token: int) -> None:
        """A sequence has one more token."""
        self.tokens.setdefault(number, []).append(token)

    def tell(self, runner: str, message: object) -> None:
        """A message is on its way to a device; an interruption overtakes what waits."""
        if isinstance(message, Interrupt):
            self.interrupted.add((runner, message.batch))
        else:
            self.pending.append((runner, message))

    def answer(self, runner: str, message: DeviceToEngine) -> None:
        """A device says something."""
        self.feed(Answered(runner, message))

    def facts_of(self, runner: str) -> RunnerFacts:
        return self.state.runners[runner].facts

    def samples(self, runner: str) -> bool:
        return True

    def transfers_of(self, runner: str, number: int | None) -> list[int]:
        """What the rows of this transfer are sent on."""
        return [] if number is None or number not in self.exported else [number]

    def request(self, prompt: tuple[int, ...], **fields: object) -> SequenceRequest:
        self.sequences += 1
        defaults: dict[str, object] = {"max_tokens": 20, "sampling": Sampling(temperature=0), "request": f"r{self.sequences}"}
        request = SequenceRequest(sequence=self.sequences, prompt=prompt, entropy=bytes(16), **{**defaults, **fields})
        self.feed(Arrived(request))
        return request

    def cancel(self, number: int) -> None:
        self.feed(Cancelled(number, "test"))

    def lose(self, runner: str) -> None:
        self.pending = [(to, message) for to, message in self.pending if to != runner]
        self.feed(Lost(runner, "test"))

    def act(self) -> bool:
        """Let one device obey its oldest message, or time pass where the scheduler waits. False when there is nothing to do."""
        if not self.pending:
            if not self.wakes:
                return False
            self.now = max(self.now, self.wakes.pop(0))
            self.feed(Tick())
            return True
        runners = sorted({runner for runner, _ in self.pending})
        runner = self.random.choice(runners)
        at = next(i for i, (to, _) in enumerate(self.pending) if to == runner)
        message = self.pending.pop(at)[1]
        self.now += 0.01
        self.obey(runner, message)
        return True

    def run(self) -> None:
        while self.act():
            pass

    def obey(self, runner: str, message: object) -> None:
        match message:
            case Submit():
                self.submit(runner, message)
            case Draft():
                self.draft(runner, message)
            case Move(source=source, destination=destination, length=length):
                content = self.slots[runner, source]
                assert len(content) >= length
                self.slots[runner, destination] = content[:length]
            case Keep(slot=slot, start=start, pages=pages):
                content = self.slots[runner, slot]
                page = facts_page(self.facts_of(runner))
                assert len(content) >= start + page * len(pages), "rows that were never written are kept"
                for i, number in enumerate(pages):
                    assert 0 <= number < self.facts_of(runner).pages
                    self.pages[runner, number] = content[: start + (i + 1) * page]
            case Fill(slot=slot, pages=pages):
                page = facts_page(self.facts_of(runner))
                for i, number in enumerate(pages):  # a page stands for all tokens up to its end: its rows depend on them
                    assert self.pages[runner, number][: i * page] == (self.pages[runner, pages[i - 1]] if i else [])
                    assert len(self.pages[runner, number]) == (i + 1) * page
                self.slots[runner, slot] = list(self.pages[runner, pages[-1]])
                assert len(self.slots[runner, slot]) <= slot.capacity, "more rows than the slot has"
            case ExpectTransfer(binding=binding):
                self.expected[binding.transfer] = message
            case OpenTransfer(binding=binding):
                self.exported[binding.transfer] = []
                self.destinations[binding.transfer] = binding.destination
            case AbortTransfer(transfer=number):
                self.expected.pop(number, None)
            case Delivery(transfer=number):
                self.deliver(number)

    def submit(self, runner: str, batch: Submit) -> None:
        self.batches.append(batch)
        facts = self.facts_of(runner)
        rooms = dict(zip(facts.capacities, facts.rooms or (facts.slots,) * len(facts.capacities), strict=True))
        assert batch.first >= 0 and batch.first + batch.count <= rooms[batch.capacity]
        assert not facts.batches or batch.count in facts.batches
        results = []
        for row in batch.rows:
            assert batch.first <= row.slot < batch.first + batch.count
            assert row.past_length + len(row.tokens) <= batch.capacity
            assert 1 <= len(row.tokens) <= batch.width <= max(1, facts.chunk)
            self.prompt_rows[runner] = self.prompt_rows.get(runner, 0) + row.prompt
            key = (runner, SlotAddress(batch.capacity, row.slot))
            content = self.slots.get(key, [])[: row.past_length]
            assert len(content) == row.past_length, "rows that were never written are taken for valid"
            content = content + list(row.tokens)
            self.slots[key] = content
            for transfer in self.transfers_of(runner, row.transfer):
                self.exported[transfer] = list(content)
                if row.commit:
                    self.pending.append((self.destinations[transfer], Delivery(transfer)))
            sampled = verdict(content, row) if row.sample is not None and self.samples(runner) else ()
            results.append(RowResult(sequence=row.sequence, sampled=sampled))
        self.report(runner, batch, results)

    def report(self, runner: str, batch: Submit, results: list[RowResult]) -> None:
        """Answer, and begin the next round where there is one."""
        started, ended = self.span(runner)
        done = BatchDone(batch=batch.batch, results=tuple(results), started=started, ended=ended, prompt_tokens=0)
        waits = any(to == runner for to, _ in self.pending) or (runner, batch.batch) in self.interrupted
        again = None if waits else following(batch, done)
        if again is not None:
            self.rounds += 1
            self.pending.insert(0, (runner, again))
        unsaid = self.unsaid.setdefault(runner, Unsaid())
        report = unsaid.take(done, more=again is not None)
        if report is not None:
            self.answer(runner, report)

    def span(self, runner: str) -> tuple[float, float]:
        """When the batch that ends now began and ended. They are quick: several rounds go into one report."""
        return 0.1 * self.now, 0.1 * self.now

    def draft(self, runner: str, batch: Draft) -> None:
        """All steps at once, or fewer where it was interrupted before its turn came."""
        rooms = dict(zip(self.facts_of(runner).capacities, self.facts_of(runner).rooms or [99] * 9, strict=False))
        assert batch.first + batch.count <= rooms[batch.capacity]
        stopped = (runner, batch.batch) in self.interrupted
        self.drafted += 1
        guesses = []
        assert len({row.slot for row in batch.rows}) == len(batch.rows), "two guesses in one slot"
        for row in batch.rows:
            key = (runner, SlotAddress(batch.capacity, row.slot))
            content = self.slots.get(key, [])[: row.past_length]
            assert len(content) == row.past_length, "rows that were never written are taken for valid"
            assert 1 <= len(row.tokens) <= self.facts_of(runner).chunk
            content = content + list(row.tokens)
            assert len(content) + max(0, row.count - 1) <= batch.capacity
            flight = self.state.runners[runner].flight
            if flight is not None and flight.batch == batch.batch:
                line = flight.lines[row.guess]
                meant = [*line.sequence.tokens[: line.base], *line.hypothesis] if row.count else line.sequence.tokens
                assert content == meant[: len(content)], "the slot holds other rows than the scheduler believes"
            tokens, others = [], []
            for _ in range(min(1, row.count) if stopped else row.count):
                guess, other = self.guess(content)
                tokens.append(guess)
                others.append((other,)[: batch.alternatives])
                content = [*content, guess]
            self.slots[key] = content[:-1] if row.count else content
            guesses.append(
                Guess(
                    sequence=row.sequence, guess=row.guess, tokens=tuple(tokens), alternatives=tuple(others) if others else ()
                )
            )
        done = DraftDone(batch=batch.batch, guesses=tuple(guesses), started=self.now, ended=self.now, steps=1)
        self.answer(runner, done)

    def guess(self, content: list[int]) -> tuple[int, int]:
        """The draft model's token and its next best: the target's own, this often, one way or the other."""
        right = next_token(content)
        wrong = (right + 1) % VOCABULARY
        return (right, wrong) if hash(tuple(content)) % 100 < self.agreement * 100 else (wrong, right)

    def deliver(self, transfer: int) -> None:
        """The pages arrive in one piece, after all that the destination was told before, or a check fails."""
        expected = self.expected.pop(transfer, None)
        if expected is None:
            return
        runner, number = expected.binding.destination, expected.binding.sequence
        if self.random.random() < self.kv_fault_share:
            failed = KvFailed(transfer=transfer, sequence=number, cause=self.kv_fault, message="planted")
            self.answer(runner, failed)
            return
        start, end = expected.binding.start, expected.binding.tokens
        before = self.slots.get((runner, expected.slot), [])[:start]
        assert len(before) == start, "rows that the destination does not have were left out"
        assert len(self.exported[transfer]) == end
        self.slots[runner, expected.slot] = before + self.exported[transfer][start:]
        arrived = KvArrived(
            transfer=transfer, sequence=number, tokens=expected.binding.tokens, size=0, chunks=1, started=0.0, ended=0.0
        )
        self.answer(runner, arrived)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())
