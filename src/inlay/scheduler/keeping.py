"""When the rows of a sequence are kept for others, and how much of a new one is known already."""

from __future__ import annotations

from inlay.scheduler.prefix import extend_chain
from inlay.scheduler.sequence import DECODE, PREFILL, Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.specs.device import Fill, Keep
from inlay.specs.schedule import Command, Send


def known_rows(state: State, sequence: Sequence, runner: RunnerState) -> int:
    """How many rows of the sequence are kept there; at least one token is left to compute. Touches nothing."""
    return len(_known(state, sequence, runner)) * runner.facts.page


def fill(state: State, sequence: Sequence, runner: RunnerState) -> tuple[list[Command], int]:
    """Copy what is kept of the sequence into its slot there, and how many rows that is."""
    found = len(_known(state, sequence, runner))
    if not found:
        return [], 0
    pages = runner.pages.match(sequence.chain)[:found]
    return [Send(runner.name, Fill(slot=sequence.slots[runner.name], pages=pages))], found * runner.facts.page


def _known(state: State, sequence: Sequence, runner: RunnerState) -> list[bytes]:
    if not runner.facts.pages or (sequence.request.whole and not sequence.generated):
        return []
    _name_pages(state, sequence, runner, sequence.wanted())
    chain = sequence.chain[: (sequence.wanted() - 1) // runner.facts.page]
    return chain[: runner.pages.length(chain)]


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
