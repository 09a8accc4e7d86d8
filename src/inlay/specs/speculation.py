"""Speculative decoding as data and arithmetic: modes, what a deployment allows, and what each mode is expected to gain.

Formulas with their names: a = acceptance per token, k = drafts, tau = expected tokens committed by one verify step. Times are
seconds. Sources: Leviathan et al. 2023 (tau, co-located), PEARL and AMUSD (free-running), Saguaro (enumerated); the forms with
a guessed bonus token are derived and checked by simulation in the tests.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

OFF, SYNCHRONOUS, FREE, ENUMERATED, NGRAM, AUTO = "off", "synchronous", "free", "enumerated", "ngram", "auto"
MODES = (AUTO, OFF, SYNCHRONOUS, FREE, ENUMERATED, NGRAM)
COUPLED, REJECTION = "coupled", "rejection"
RULES = (COUPLED, REJECTION)
WORTH_WHILE = 1.05
"""Speculation is off where the predicted gain over plain decoding is less."""

USUAL_HITS = 0.85
"""Of outcomes of a verify step, the share that is drafted ahead in mode "enumerated", before any have shown it: that of a cache
which always holds the right correction but for one in seven."""


class SpeculationSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment wants. `mode` "auto" chooses among the others; `drafts` is the longest guess; `breadth` how many
    outcomes of one verify step are drafted ahead in mode "enumerated"; `rule` how guesses are judged; `truncate` how many
    tokens of the draft's distribution travel under the rule "rejection"; `patience` how many seconds a verify step waits for
    a late draft."""

    mode: str = AUTO
    drafts: int = 7
    breadth: int = 5
    rule: str = COUPLED
    truncate: int = 32
    patience: float = 0.25


class Speeds(NamedTuple):
    """What a choice is made from, in seconds: a plain step, a verify step of k drafts, one draft token and the feeding
    before it, and the messages to the target and back, to the draft runner and back, and around a plain step (0 where the
    target decodes several in a row)."""

    plain: float
    verify: float
    draft: float
    feed: float
    round_trip: float
    draft_trip: float
    plain_trip: float


def expected_tokens(acceptance: float, drafts: int) -> float:
    """tau = (1 - a^(k+1)) / (1 - a): tokens that one verify step of k drafts commits, each accepted with probability a."""
    if acceptance >= 1.0:
        return drafts + 1.0
    return (1.0 - acceptance ** (drafts + 1)) / (1.0 - acceptance)


def gain(mode: str, acceptance: float, drafts: int, speeds: Speeds, *, hit: float | None = None) -> float:
    """Tokens a second in this mode over those of plain decoding. `hit` is the share of outcomes that were drafted ahead
    (enumerated); where it is not known yet, that of a cache that always holds the right correction but for one in seven."""
    tau = expected_tokens(acceptance, drafts)
    drafting = speeds.feed + drafts * speeds.draft + speeds.draft_trip
    plain = speeds.plain + speeds.plain_trip
    if mode == OFF:
        return 1.0
    if mode == NGRAM:
        return tau * plain / (speeds.verify + speeds.round_trip)
    if mode == SYNCHRONOUS:
        return tau * plain / (speeds.verify + speeds.round_trip + drafting)
    if mode == FREE:
        ahead = acceptance ** (drafts + 1)
        return tau * plain / _overlapped(speeds, ahead, drafting + speeds.draft, drafting)
    if mode == ENUMERATED:
        return tau * plain / _overlapped(speeds, USUAL_HITS if hit is None else hit, drafting + speeds.draft, drafting)
    raise ValueError(f"mode is {mode!r}, expected one of {MODES[1:]}")


def _overlapped(speeds: Speeds, hit: float, ahead: float, again: float) -> float:
    """Seconds of one round: where the guess ahead was right the two overlap, else the draft is made again after it."""
    verify = speeds.verify + speeds.round_trip
    together, apart = max(verify, ahead), verify + again
    return hit * together + (1.0 - hit) * apart
