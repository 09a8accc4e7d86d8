"""From events to the chunks of one stream. Pure: what is written when is decided here, answer.py writes it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from inlay.gateway.forms import Form
from inlay.gateway.tally import Choice, Tally
from inlay.gateway.upstream import Event
from inlay.specs.generation import Delta, Finished
from inlay.wire import Served, Usage


class Chunks:
    """The stream of one HTTP call.

    A choice opens with its first Delta, not earlier, so that a client that times the first chunk times a token.
    The last choice of a prompt to end is told only when its prompt has Finished: that chunk carries `inlay`.
    """

    def __init__(self, form: Form, tally: Tally, *, includes_usage: bool, counts_continuously: bool) -> None:
        self._form = form
        self._tally = tally
        self._includes_usage = includes_usage
        self._counts_continuously = counts_continuously
        self._opened: set[int] = set()
        self._held: dict[int, Choice] = {}

    def add(self, position: int, event: Event) -> list[msgspec.Struct]:
        """The chunks that `event` of the prompt at `position` makes due. Raises RequestError as Tally.add does."""
        choice = self._tally.add(position, event)
        if isinstance(event, Finished):
            held = self._held.pop(position)
            return [self._ending(held, served=self._tally.served(position))]
        if choice is None or not isinstance(event, Delta):
            return []
        chunks = []
        if choice.index not in self._opened:
            self._opened.add(choice.index)
            opening = self._form.opening(choice.index)
            if opening is not None:
                chunks.append(self._chunk(opening, choice))
        if event.text or event.logprobs or event.calls or (self._counts_continuously and event.tokens):
            offset = choice.characters - len(event.text)
            piece = self._form.piece(choice.index, event, offset=offset)
            chunks.append(self._chunk(piece, choice))
        if choice.finish_reason is not None:
            if all(other.finish_reason is not None for other in self._tally.of_prompt(position)):
                self._held[position] = choice
            else:
                chunks.append(self._ending(choice))
        return chunks

    def last(self) -> list[msgspec.Struct]:
        """What follows when every prompt has finished: the usage, if asked for."""
        return [self._form.chunk((), usage=self._tally.usage())] if self._includes_usage else []

    def _ending(self, choice: Choice, *, served: Served | UnsetType = UNSET) -> msgspec.Struct:
        return self._chunk(self._form.ending(choice.index, choice.finish_reason or ""), choice, served=served)

    def _chunk(self, made: Any, choice: Choice, *, served: Served | UnsetType = UNSET) -> msgspec.Struct:
        usage: Usage | UnsetType | None = None if self._includes_usage else UNSET
        if self._counts_continuously:
            usage = self._tally.usage_so_far(choice)
        return self._form.chunk((made,), usage=usage, served=served)
