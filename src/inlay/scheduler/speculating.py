"""Guesses of one sequence: what was drafted, what of it still agrees with the text, and which rows of the draft runner do.

A guess is a continuation of the first `base` tokens. It stays useful as long as the text goes on as it says; what is left of it
is what the next verify step is given. So one book serves all modes, whether the draft waits for the verdict or runs ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from inlay.scheduler.acceptance import Acceptance
from inlay.scheduler.ngram import Memory
from inlay.specs.device import Proposal, SlotAddress
from inlay.specs.speculation import NGRAM

FORGET = 0.9
"""How much an older verdict counts at each new one."""


@dataclass(slots=True, eq=False)
class Guess:
    """`tokens` follow the first `base` tokens of the sequence; by position `alternatives` and `proposals` where asked for."""

    base: int
    tokens: list[int]
    alternatives: list[tuple[int, ...]] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)

    def left(self, tokens: list[int]) -> int:
        """How many of its tokens are still to come, -1 where the text has gone another way."""
        done = len(tokens) - self.base
        if done < 0 or tokens[self.base :] != self.tokens[:done]:
            return -1
        return len(self.tokens) - done


@dataclass(slots=True, eq=False)
class DraftSlot:
    """A slot of the draft runner: its first `agreed` rows are the text's own, `tail` are tokens of the rows after them."""

    slot: SlotAddress
    agreed: int = 0
    tail: list[int] = field(default_factory=list)
    busy: bool = False

    def follow(self, tokens: list[int]) -> None:
        """Take in how the text went on."""
        done = 0
        while done < len(self.tail) and self.agreed < len(tokens) and self.tail[done] == tokens[self.agreed]:
            self.agreed += 1
            done += 1
        if self.agreed < len(tokens):
            self.tail = []
        elif done:
            del self.tail[:done]

    def common(self, length: int, hypothesis: list[int]) -> int:
        """How many rows it has of the first `length` tokens of the text and a hypothesis after them."""
        if self.agreed < length:
            return self.agreed
        same = next((i for i, (a, b) in enumerate(zip(self.tail, hypothesis, strict=False)) if a != b), None)
        return length + (min(len(self.tail), len(hypothesis)) if same is None else same)


@dataclass(slots=True, eq=False)
class Speculation:
    """How one sequence speculates now, with `drafts` at a time, at most `longest`.

    `asked` is the mode that was asked for, `mode` the one that it is in; `drafter` is the draft runner (none where it drafts
    from its own text); `verifying` how many drafts the verify step under way was given, -1 where there is none. `verdicts` are
    those of late, by who drafted; `hits` of `outcomes` verdicts found the next guess made already. `since` counts verdicts
    since the last choice; without drafts the next one is made at `probe_at` tokens, and may be to be `probing` for one step.
    One verify step was `expected` to take so many seconds, and the present one `began` then. `coverage` is the share of steps
    for which its own text had a guess. `best_mode` promised most at the last choice, `best_gain`, taken or not.
    """

    asked: str
    mode: str
    drafts: int
    longest: int
    drafter: str | None = None
    slots: list[DraftSlot] = field(default_factory=list)
    guesses: list[Guess] = field(default_factory=list)
    memory: Memory | None = None
    verifying: int = -1
    verdicts: dict[bool, Acceptance] = field(default_factory=dict)
    since: int = 0
    probe_at: int = 0
    probing: bool = False
    expected: float = 0.0
    began: float = 0.0
    coverage: float = 0.5
    hits: float = 0.0
    outcomes: float = 0.0
    best_mode: str = ""
    best_gain: float = 0.0

    def best(self, tokens: list[int]) -> Guess | None:
        """The guess with most left to come, those that the text has left behind forgotten."""
        kept = [(left, guess) for guess in self.guesses if (left := guess.left(tokens)) > 0]
        self.guesses = [guess for _, guess in kept]
        return max(kept, key=lambda item: item[0])[1] if kept else None

    def follow(self, tokens: list[int]) -> None:
        """The text has grown."""
        for slot in self.slots:
            slot.follow(tokens)

    def judge(self, sent: int, accepted: int) -> None:
        """The verdict on `sent` drafts of the present mode."""
        self.verdicts.setdefault(self.mode == NGRAM, Acceptance()).judge(sent, accepted, forget=FORGET)

    def acceptance_of(self, mode: str, prior: float, weight: float) -> float:
        """Share of judged tokens that were accepted of what such a mode drafts; `prior` is what others have
        shown, which counts for `weight` tokens."""
        return self.verdicts.get(mode == NGRAM, Acceptance()).share(prior=prior, weight=weight)

    def idle_slot(self, length: int, hypothesis: list[int], *, taken: list[DraftSlot]) -> DraftSlot | None:
        """The slot that has most of these rows and no work, none of those that are taken."""
        free = [slot for slot in self.slots if not slot.busy and not any(slot is other for other in taken)]
        return max(free, key=lambda slot: slot.common(length, hypothesis), default=None)
