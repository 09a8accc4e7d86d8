"""What the engine adds to batches that the scheduler knows nothing of: masks of grammars, histories for penalties, and
the prompt tokens whose log-probabilities are wanted. Between `EngineLoop` and the devices; it does no I/O.

It sees every token that a sequence emits, so its matchers stand where the text stands. A row with drafts gets a mask for
each of its positions: the matcher walks along the drafts and goes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from inlay.engine.grammar import Matcher
from inlay.specs.device import BatchDone, Row, Submit
from inlay.specs.sampling import History, SampledToken, Sampling

Scores = tuple[SampledToken, ...]


class Fault(NamedTuple):
    """Why a sequence cannot go on, and the HTTP status that says so."""

    status: int
    code: str
    message: str


class Guide:
    """One sequence. `score` asks for log-probabilities of its prompt with so many rivals (-1 = none); `ignores_end` keeps
    end tokens out as long as its grammar allows anything else."""

    def __init__(
        self,
        prompt: tuple[int, ...],
        *,
        sampling: Sampling,
        matcher: Matcher | None = None,
        score: int = -1,
        ignores_end: bool = False,
    ) -> None:
        self._prompt = prompt
        self._matcher = matcher
        self._ignores_end = ignores_end
        self._looks_back = sampling.looks_back
        self._distinct = tuple(sorted(set(prompt))) if sampling.repetition != 1.0 else ()
        self._generated: list[int] = []
        self._top = score
        self._scores: list[SampledToken | None] = [None] * (len(prompt) - 1) if score >= 0 else []
        self._asked: dict[int, int] = {}
        self.fault: Fault | None = None

    @staticmethod
    def is_needed(sampling: Sampling, *, constrained: bool, score: int) -> bool:
        """Whether a sequence has anything to be guided in."""
        return constrained or sampling.looks_back or score >= 0

    @property
    def is_complete(self) -> bool:
        """Whether its grammar lets nothing but the end follow."""
        return self._matcher is not None and self._matcher.is_complete

    @property
    def missing(self) -> int:
        """How many prompt tokens still have no log-probability."""
        return self._scores.count(None)

    def scores(self) -> Scores:
        """The log-probabilities of all prompt tokens but the first, once none is missing."""
        return tuple(item for item in self._scores if item is not None)

    def prepare(self, row: Row, *, batch: int) -> Row:
        """The row with all that it needs from here. One that is not at the place of the text (a draft's) is left alone."""
        row = self._with_targets(row, batch=batch)
        at = row.past_length + len(row.tokens) - row.drafts
        if row.sample is None or at != len(self._prompt) + len(self._generated):
            return row
        drafts = row.tokens[len(row.tokens) - row.drafts :]
        masks = () if self._matcher is None else self._masks(self._matcher, drafts)
        history = History(prompt=self._distinct, generated=tuple(self._generated)) if self._looks_back else None
        return msgspec.structs.replace(row, masks=masks, history=history)

    def emitted(self, token: int) -> None:
        """The text went on by `token`; `fault` is set where its grammar does not take it, and where it came before all
        prompt tokens were scored."""
        self._generated.append(token)
        if self._matcher is not None and not self._matcher.is_complete and not self._matcher.accept(token):
            self.fault = Fault(500, "guidance_failed", f"token {token} does not fit the grammar: {self._matcher.error}")
        elif self.missing:
            lacking = f"{self.missing} prompt tokens have no log-probability: their rows were not computed"
            self.fault = Fault(500, "guidance_failed", lacking)

    def scored(self, batch: int, targets: Scores) -> bool:
        """Take what a row brought; True when this was the last that was missing."""
        start = self._asked.pop(batch, None)
        if start is None or not targets:
            return False
        was_missing = self.missing
        self._scores[start : start + len(targets)] = targets
        return was_missing > 0 and self.missing == 0

    def _with_targets(self, row: Row, *, batch: int) -> Row:
        start = row.past_length
        end = min(start + len(row.tokens), len(self._scores))
        if start >= end or None not in self._scores[start:end]:
            return row
        self._asked[batch] = start
        return msgspec.structs.replace(row, targets=self._prompt[start + 1 : end + 1], target_top=self._top)

    def _masks(self, matcher: Matcher, drafts: Sequence[int]) -> tuple[bytes, ...]:
        """One mask a position; empty ones after a draft that may not come or that ends the text, where nothing can follow."""
        masks, walked = [self._mask(matcher)], 0
        for draft in drafts:
            if not masks[-1] or not _has(masks[-1], draft) or draft in matcher.ends:
                masks.append(b"")
                continue
            matcher.accept(draft)
            walked += 1
            masks.append(self._mask(matcher))
        matcher.go_back(walked)
        return tuple(masks)

    def _mask(self, matcher: Matcher) -> bytes:
        mask = matcher.mask(without_ends=self._ignores_end)
        if not any(mask):
            left = f"the grammar leaves no token: {matcher.error or 'it comes to no end'}"
            self.fault = Fault(400, "invalid_grammar", left)
            return b""
        return mask


class Guidance:
    """All guided sequences of one engine, by number. Costs nothing while there are none."""

    def __init__(self) -> None:
        self._guides: dict[int, Guide] = {}

    def add(self, sequence: int, guide: Guide) -> None:
        """Guide a sequence until it is forgotten."""
        self._guides[sequence] = guide

    def forget(self, sequence: int) -> None:
        """The sequence has ended."""
        self._guides.pop(sequence, None)

    def find(self, sequence: int) -> Guide | None:
        """The guide of a sequence, if it has one."""
        return self._guides.get(sequence) if self._guides else None

    def prepare(self, message: Submit) -> Submit:
        """The batch with all that its rows need; itself where they need nothing."""
        if not self._guides or not any(row.sequence in self._guides for row in message.rows):
            return message
        rows = tuple(
            row if guide is None else guide.prepare(row, batch=message.batch)
            for row, guide in ((row, self._guides.get(row.sequence)) for row in message.rows)
        )
        return msgspec.structs.replace(message, rows=rows)

    def faults(self, message: Submit) -> list[tuple[int, Fault]]:
        """Sequences of a batch that can have no further token, and why."""
        if not self._guides:
            return []
        found = ((row.sequence, self._guides.get(row.sequence)) for row in message.rows)
        return [(number, guide.fault) for number, guide in found if guide is not None and guide.fault is not None]

    def scored(self, done: BatchDone) -> list[tuple[int, Scores]]:
        """Sequences whose prompt's log-probabilities a batch has completed, with them."""
        if not self._guides:
            return []
        found = ((result, self._guides.get(result.sequence)) for result in done.results)
        return [
            (result.sequence, guide.scores())
            for result, guide in found
            if guide is not None and guide.scored(done.batch, result.targets)
        ]


def _has(mask: bytes, token: int) -> bool:
    return token // 8 < len(mask) and bool(mask[token // 8] >> token % 8 & 1)
