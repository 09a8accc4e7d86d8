"""When the rows of a sequence are kept for others, and how much of a new one is known already."""

from __future__ import annotations

from inlay.scheduler.prefix import extend_chain
from inlay.scheduler.sequence import DECODE, PREFILL, Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.specs.device import Keep
from inlay.specs.schedule import Command, Send


def known_prefix(state: State, sequence: Sequence, runner: RunnerState) -> tuple[int, ...]:
    """The kept pages that hold the beginning of the sequence's tokens; at least one token is left to compute."""
    if not runner.facts.pages:
        return ()
    _name_pages(state, sequence, runner, sequence.wanted())
    pages = runner.pages.match(sequence.chain)
    return pages[: (sequence.wanted() - 1) // runner.facts.page]


def keep(state: State, sequence: Sequence, runner: RunnerState) -> list[Command]:
    """Keep the full pages of the rows that are computed on the runner that works on it, before its slot goes to another or
    in case one asks for the same beginning."""
    slot = sequence.slots.get(runner.name)
    if not runner.facts.pages or slot is None or not runner.alive or sequence.phase not in (PREFILL, DECODE):
        return []
    _name_pages(state, sequence, runner, sequence.computed)
    first, pages = runner.pages.keep(sequence.chain[: sequence.computed // runner.facts.page])
    return [Send(runner.name, Keep(slot=slot, start=first * runner.facts.page, pages=pages))] if pages else []


def _name_pages(state: State, sequence: Sequence, runner: RunnerState, rows: int) -> None:
    page = runner.facts.page
    if rows // page > len(sequence.chain):
        extend_chain(sequence.chain, sequence.tokens[: rows // page * page], page=page, salt=state.salt_of(sequence))
