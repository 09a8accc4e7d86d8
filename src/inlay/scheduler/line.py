"""One row of a draft batch under way: what it continues and for whom."""

from __future__ import annotations

from dataclasses import dataclass

from inlay.scheduler.sequence import Sequence
from inlay.scheduler.speculating import DraftSlot, Guess, Speculation


@dataclass(slots=True)
class Line:
    """`hypothesis` are guesses after the first `base` tokens of the text; `feed` is what the slot does not have of both, after
    `past` rows; `count` how many tokens are wanted (0 = none, it only catches up); `extends` the guess it goes on with."""

    sequence: Sequence
    speculation: Speculation
    slot: DraftSlot
    base: int
    hypothesis: list[int]
    feed: tuple[int, ...]
    past: int
    count: int
    extends: Guess | None = None
