"""Why a request was served the way it was, in words: from what the scheduler weighed. Predicted figures say so."""

from __future__ import annotations

from inlay.specs.choice import Drafted, Drafting, Weighed
from inlay.specs.generation import Started
from inlay.specs.speculation import NGRAM, OFF, WORTH_WHILE
from inlay.units import format_seconds

WAYS = {
    "whole": "the prompt is computed where it decodes",
    "split": "the prompt is computed elsewhere and handed off",
    "part": "the first part of the prompt is computed elsewhere and handed off",
}
CAUSES = {
    "asked": "as asked for",
    "one token": "there is one token to make",
    "no drafter": "no draft runner that could be used",
    "no slots": "no free slot of a draft runner",
}


def way_reason(started: Started) -> str:
    """Why the prompt was computed where it was."""
    said = WAYS.get(started.way, started.way)
    if not started.weighed:
        why = "as the request asked" if started.asked else "the shortest queue, no times are known"
        return f"{said}: {why}"
    best, *others = started.weighed
    first = f"predicted ({best.grade}) {format_seconds(best.seconds)} to the first token, added slowdown {best.added:.1f}"
    if started.asked:
        return f"{said}: as the request asked; {first}"
    if not others:
        return f"{said}: the only way there is; {first}"
    return f"{said}: {first}; {'; '.join(map(_other, others))}"


def _other(way: Weighed) -> str:
    return f"{way.way} {format_seconds(way.seconds)}, {way.added:.1f}"


def mode_of(drafting: Drafting | None, drafted: Drafted | None) -> str:
    """The mode that gave most tokens; before any, the one that it begins with."""
    if drafted is not None and drafted.modes:
        return max(drafted.modes, key=lambda mode: drafted.modes[mode])
    return OFF if drafting is None else drafting.mode


def mode_reason(drafting: Drafting | None, drafted: Drafted | None) -> str:
    """Why it began to speculate as it did, or not at all; then how it went on."""
    if drafting is None or drafting.cause:
        return f"off: {CAUSES.get('' if drafting is None else drafting.cause, 'nothing is known of it')}"
    mode = f"{drafting.mode} with {drafting.runner}" if drafting.runner and drafting.mode not in (OFF, NGRAM) else drafting.mode
    if drafting.asked:
        said = f"{mode}: as asked for"
    elif not drafting.best or drafting.gain <= 0.0:
        said = f"{mode}: no times are known"
    elif drafting.mode == OFF:
        said = f"off: predicted ({drafting.grade}) gain of {drafting.best} is {drafting.gain:.2f}, under {WORTH_WHILE}"
    else:
        said = f"{mode}: predicted ({drafting.grade}) gain {drafting.gain:.2f} with up to {drafting.drafts} drafts"
    if drafted is None:
        return said
    went = ", ".join(f"{count} {mode}" for mode, count in sorted(drafted.modes.items(), key=lambda item: -item[1]))
    kept = f"; {drafted.accepted} of {drafted.drafts} drafts kept" if drafted.drafts else ""
    return f"{said}; tokens by mode: {went}{kept}"
