"""When the rows of a sequence are kept for others, how much of a new one is known already, and its place with that."""

from __future__ import annotations

from inlay.scheduler.prefix import extend_chain
from inlay.scheduler.sequence import DECODE, PREFILL, Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.specs.device import Fill, Keep
from inlay.specs.schedule import Command, Send


def known_rows(state: State, sequence: Sequence, runner: RunnerState) -> int:
    """How many rows of the sequence are kept there; at least one token is left to compute. Touches nothing."""
    return len(_known(state, sequence, runner)) * runner.facts.page


def has_room(state: State, sequence: Sequence, runner: RunnerState, rows: int) -> bool:
    """Whether so many rows of the sequence find room there; pages that it would share with others take none."""
    if runner.paging is None:
        return runner.has_room(rows)
    if len(runner.holders) >= runner.facts.slots:
        return False
    return runner.has_room(rows, shared=runner.paging.in_use(_sharable(state, sequence, runner, rows)))


def enter(state: State, sequence: Sequence, runner: RunnerState, rows: int) -> tuple[list[Command], int]:
    """Give the sequence its place for `rows` rows there, with what is kept of it: how many rows that is. Pages are shared as
    they are, a slot is filled with copies. The caller has checked that there is room."""
    page = runner.facts.page
    if runner.paging is not None:
        known = _sharable(state, sequence, runner, rows)
        runner.hold(sequence, rows, shared=runner.paging.share(known))
        return [], len(known) * page
    slot = runner.hold(sequence, rows)
    known = _known(state, sequence, runner)
    if not known:
        return [], 0
    known = known[: rows // page]  # a part of a prompt may be less than is kept of it
    pages = runner.pages.match(known)
    return [Send(runner.name, Fill(slot=slot, pages=pages))], len(known) * page


def _sharable(state: State, sequence: Sequence, runner: RunnerState, rows: int) -> list[bytes]:
    """What is kept of the first `rows` rows, of which the last is computed all the same: so its page is not shared."""
    return _known(state, sequence, runner)[: (rows - 1) // runner.facts.page]


def _known(state: State, sequence: Sequence, runner: RunnerState) -> list[bytes]:
    facts = runner.facts
    if not facts.pages or not facts.keeps or (sequence.request.whole and not sequence.generated):
        return []
    chain = _chain(state, sequence, runner, sequence.wanted())[: (sequence.wanted() - 1) // facts.page]
    return chain[: (runner.pages if runner.paging is None else runner.paging).length(chain)]


def keep(state: State, sequence: Sequence, runner: RunnerState) -> list[Command]:
    """Keep the full pages of the rows that are computed on the runner that works on it, before its slot goes to another or
    in case one asks for the same beginning."""
    slot, facts = sequence.slots.get(runner.name), runner.facts
    if not facts.pages or not facts.keeps or slot is None or not runner.alive or sequence.phase not in (PREFILL, DECODE):
        return []
    chain = _chain(state, sequence, runner, sequence.computed)[: sequence.computed // facts.page]
    if runner.paging is not None:  # they lie where they are to be kept
        runner.paging.name(sequence.tables[runner.name], chain)
        return []
    first, pages = runner.pages.keep(chain)
    return [Send(runner.name, Keep(slot=slot, start=first * facts.page, pages=pages))] if pages else []


def _chain(state: State, sequence: Sequence, runner: RunnerState, rows: int) -> list[bytes]:
    """The names of the sequence's pages of that runner's size, at least those that are full with so many rows."""
    page = runner.facts.page
    chain = sequence.chains.setdefault(page, [])
    if rows // page > len(chain):
        extend_chain(chain, sequence.tokens[: rows // page * page], page=page, salt=state.salt_of(sequence))
    return chain
