"""What the scheduler chose for one request, and what it weighed: data, from which words are made where people read them."""

from __future__ import annotations

import msgspec

ALONE = 2.0
"""The cost of a way that slows down nobody: its first token and its others take as long as alone on the fastest runner."""


def grade_of(*tables: str) -> str:
    """The grade of what is predicted from tables of these grades."""
    return "calibrated" if tables and all(table == "measured" for table in tables) else "modelled"


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """One way to compute a prompt: its name, where, the predicted seconds to the first token, and how much it slows everybody
    down (the sum of slowdowns; the least is taken). `grade`: "calibrated" where the runners' tables were measured."""

    way: str
    prefill: str
    decode: str
    seconds: float
    cost: float
    grade: str = "modelled"

    @property
    def added(self) -> float:
        """What is beyond the cost of a way that slows down nobody."""
        return self.cost - ALONE


class Drafting(msgspec.Struct, frozen=True, kw_only=True):
    """How a sequence begins to speculate: the mode, at most so many drafts, made at `runner` ("" = without a model).

    `gain` is the predicted gain over plain decoding of `best`, the best mode there is, which is not the mode where it is not
    worth while; 0 where no times are known. `asked`: the request or the deployment named the mode. `cause` says why it does not
    speculate at all: "asked", "one token", "no drafter" or "no slots".
    """

    mode: str
    drafts: int = 0
    runner: str = ""
    best: str = ""
    gain: float = 0.0
    asked: bool = False
    cause: str = ""
    grade: str = "modelled"


class Drafted(msgspec.Struct, frozen=True, kw_only=True):
    """How a sequence did speculate: tokens by the mode of the step that gave them, and of the drafts how many were kept."""

    modes: dict[str, int]
    drafts: int
    accepted: int
