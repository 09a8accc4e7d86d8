"""Where a prompt is computed and where it is decoded: the cheapest of all ways by predicted time, for it and for the others.

Ways: all on the decode runner; all on a prefill runner, then handed off; the first part there, the rest where it decodes.
The cost of a way is the time to the first token plus the time by which its chunks hold up the sequences that decode on the
same runner.
Without measured times the runner with the shortest queue computes the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import NamedTuple

from inlay.scheduler.keeping import has_room, known_rows
from inlay.scheduler.sequence import Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.specs.latency import LatencyTable

PARTS = 4
"""A prompt may be divided at each of so many equal parts."""
TRANSFER_BYTES = 1e9
"""What a hand-off moves in a second, where nothing better is known; only its last chunk is waited for."""
TRANSFER_SECONDS = 0.002
"""What a hand-off costs besides."""


class Way(NamedTuple):
    """`part` rows of the prompt are computed on `prefill`, the rest on `decode` (0 = all where `prefill` is). `seconds` are
    predicted to the first token, `held_up` those that other sequences lose; 0 where no times are known."""

    prefill: RunnerState
    decode: RunnerState
    part: int = 0
    seconds: float = 0.0
    held_up: float = 0.0

    @property
    def cost(self) -> float:
        """What is to be least."""
        return self.seconds + self.held_up

    @property
    def name(self) -> str:
        """How it is called where a choice is explained."""
        return "whole" if self.prefill is self.decode else "part" if self.part else "split"


def choose_way(state: State, sequence: Sequence, prefills: Items[RunnerState], decoders: Items[RunnerState]) -> Way | None:
    """The cheapest way over runners that may be used; None where none has room."""
    request, rows = sequence.request, len(sequence.tokens)
    roomy = [item for item in decoders if has_room(state, sequence, item, rows + 1)]
    if not roomy:
        return None
    if sequence.generated:  # most of it is kept where it was decoded before
        decode = max(roomy, key=lambda item: (item.name == sequence.decode, item.facts.slots - len(item.holders)))
        return Way(decode, decode)
    if all(item.facts.table is not None for item in (*prefills, *roomy)):
        ways = list(_ways(state, sequence, prefills, roomy))
        return min(ways, key=lambda way: way.cost, default=None)
    decode = max(roomy, key=lambda item: item.facts.slots - len(item.holders))
    able = [item for item in prefills if item is decode or has_room(state, sequence, item, rows)]
    if not able:
        return None
    prefill = min(able, key=lambda item: (len(item.prefilling), item is not decode))
    if request.max_tokens == 1 and request.decode is None and has_room(state, sequence, prefill, rows + 1):
        decode = prefill  # one token only: nothing to hand off
    return Way(prefill, decode)


def _ways(state: State, sequence: Sequence, prefills: Items[RunnerState], decoders: Items[RunnerState]) -> Iterator[Way]:
    rows = len(sequence.tokens)
    for decode in decoders:
        known = known_rows(state, sequence, decode)
        for prefill in prefills:
            if prefill is decode:
                work = _seconds(decode, rows - known)
                yield Way(decode, decode, 0, _queue(decode) + work, _held_up(decode, work) + _step(decode, rows))
                continue
            if not has_room(state, sequence, prefill, rows):
                continue
            cached = known_rows(state, sequence, prefill)
            parts = [rows * part // PARTS for part in range(1, PARTS)] if "prefill" in decode.facts.roles else []
            for part in [0, *(part for part in parts if part > known)]:
                end = part or rows
                here = _seconds(prefill, max(0, end - cached))
                there = _seconds(decode, rows - end) if part else 0.0
                moved = min(end - known, prefill.facts.chunk) * decode.facts.kv_bytes / TRANSFER_BYTES
                wait = max(_queue(prefill) + here + moved + TRANSFER_SECONDS, _queue(decode) if part else 0.0)
                held = _held_up(prefill, here) + _held_up(decode, there)
                yield Way(prefill, decode, part, wait + there, held + _step(decode, rows))


def _table(runner: RunnerState) -> LatencyTable:
    table = runner.facts.table
    if table is None:
        raise ValueError(f"{runner.name} has no latency table")
    return table


def _seconds(runner: RunnerState, rows: int) -> float:
    """Time to compute so many rows of one prompt, in chunks."""
    if rows <= 0:
        return 0.0
    table, chunk = _table(runner), runner.facts.chunk
    past = runner.facts.capacities[0]
    chunks, rest = divmod(rows, chunk)
    return chunks * table.seconds(batch=1, width=chunk, past=past) + (
        table.seconds(batch=1, width=rest, past=past) if rest else 0.0
    )


def _queue(runner: RunnerState) -> float:
    """Time until it has computed the prompts that it was given before; decode steps between their chunks included."""
    left = sum(item.goal() - item.computed for item in runner.prefilling)
    work = _seconds(runner, left)
    members = sum(len(items) for items in runner.decoding.values())
    if members and left:
        chunks = -(-left // runner.facts.chunk)
        work += chunks * _table(runner).seconds(batch=members, width=1, past=runner.facts.capacities[0])
    return work


def _held_up(runner: RunnerState, work: float) -> float:
    """What the sequences that decode there lose by so much other work, all together."""
    return work * sum(len(items) for items in runner.decoding.values())


def _step(runner: RunnerState, rows: int) -> float:
    """What one more sequence adds to a decode step there, for it and for all others."""
    members = sum(len(items) for items in runner.decoding.values()) + 1
    past = next((item for item in runner.facts.capacities if item > rows), runner.facts.capacities[-1])
    return _table(runner).seconds(batch=members, width=1, past=past) * members
