"""What has come of one HTTP call so far: the choices' texts, the counts, the places; pure bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inlay.errors import RequestError
from inlay.gateway.reasons import mode_of, mode_reason, way_reason
from inlay.gateway.upstream import Event, error_of, protocol_error
from inlay.specs.generation import CallPiece, Delta, Failed, Finished, Started
from inlay.wire import Served, Usage, count_usage


@dataclass(kw_only=True)
class Choice:
    """One answer: `index` is its place among all choices of the HTTP call. `characters` is the length of its text."""

    index: int
    texts: list[str] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    calls: list[CallPiece] = field(default_factory=list)
    characters: int = 0
    tokens: int = 0
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)

    def whole_calls(self) -> list[tuple[str, str, str]]:
        """The calls of functions: (id, name, arguments) each."""
        found: dict[int, list[CallPiece]] = {}
        for piece in self.calls:
            found.setdefault(piece.index, []).append(piece)
        return [(of[0].id, of[0].name, "".join(piece.arguments for piece in of)) for of in found.values()]


class Tally:
    """Adds events up. `choices` is n, the number of answers to each of `prompts` prompts.

    `keeps_text` False forgets texts and log-probabilities, which a stream has already sent.
    """

    def __init__(self, *, prompts: int, choices: int, keeps_text: bool) -> None:
        self._n = choices
        self._keeps_text = keeps_text
        self.choices = [Choice(index=i) for i in range(prompts * choices)]
        self._started: list[Started | None] = [None] * prompts
        self._finished: list[Finished | None] = [None] * prompts

    def add(self, position: int, event: Event) -> Choice | None:
        """Take one event of the prompt at `position`; the choice it belongs to, when it is a Delta.

        Raises RequestError for Failed, and for events that come in an impossible order.
        """
        if isinstance(event, Failed):
            raise error_of(event)
        if isinstance(event, Started):
            self._started[position] = event
            return None
        if isinstance(event, Finished):
            if any(choice.finish_reason is None for choice in self.of_prompt(position)):
                raise protocol_error("Finished came before every choice had its finish reason")
            self._finished[position] = event
            return None
        return self._extend(position, event)

    def _extend(self, position: int, delta: Delta) -> Choice:
        if not 0 <= delta.index < self._n:
            raise protocol_error(f"a delta is for choice {delta.index}, expected 0 to {self._n - 1}")
        choice = self.choices[position * self._n + delta.index]
        if choice.finish_reason is not None:
            raise protocol_error(f"a delta came after choice {delta.index} had ended")
        choice.characters += len(delta.text)
        choice.tokens += len(delta.tokens)
        choice.finish_reason = delta.finish_reason
        if self._keeps_text:
            choice.texts.append(delta.text)
            choice.rows.extend(delta.logprobs)
            choice.calls.extend(delta.calls)
        return choice

    def of_prompt(self, position: int) -> Sequence[Choice]:
        """The choices of one prompt."""
        return self.choices[position * self._n : (position + 1) * self._n]

    def usage(self) -> Usage:
        """The counts of all prompts that have finished."""
        done = [event for event in self._finished if event is not None]
        return count_usage(
            sum(event.prompt_tokens for event in done),
            sum(event.completion_tokens for event in done),
            cached=sum(event.cached_tokens for event in done),
        )

    def usage_so_far(self, choice: Choice) -> Usage:
        """The counts of one choice at this moment, with its prompt's."""
        started = self._started[choice.index // self._n]
        return count_usage(0 if started is None else started.prompt_tokens, choice.tokens)

    def served(self, position: int) -> Served:
        """Where the prompt at `position` ran, and its timing once it has finished."""
        started, finished = self._started[position], self._finished[position]
        timing = {} if finished is None else finished.timing
        if started is None:
            return Served(prefill="", decode="", timing=timing)
        drafted = None if finished is None else finished.drafted
        return Served(
            prefill=started.prefill,
            decode=started.decode,
            timing=timing,
            way=started.way,
            reason=way_reason(started),
            speculation=mode_of(started.drafting, drafted),
            speculation_reason=mode_reason(started.drafting, drafted),
            acceptance=None if drafted is None or not drafted.drafts else round(drafted.accepted / drafted.drafts, 3),
        )

    def served_all(self) -> Served:
        """The same for the whole call; see `Served.prompts`."""
        each = tuple(self.served(i) for i in range(len(self._started)))
        first = each[0]
        return msgspec.structs.replace(first, prompts=each if len(each) > 1 else ())


def refused(batch: Sequence[tuple[int, Event]]) -> RequestError | None:
    """The error among a stream's first events, while the status line can still say it."""
    return next((error_of(event) for _, event in batch if isinstance(event, Failed)), None)
