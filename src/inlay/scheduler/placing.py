"""Where a prompt is computed and where it is decoded: the way that slows everybody down least, by predicted times.

Ways: all on the decode runner; all on a prefill runner, then handed off; the first part there, the rest where it decodes.
The cost of a way is how many times as long as alone the first token takes, and one of the others, and what is added to both for
all sequences on the same runners. Alone: on the fastest runner with nothing else to do.
Without measured times the runner with the shortest queue computes the prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from typing import NamedTuple

from inlay.scheduler.keeping import has_room, known_rows
from inlay.scheduler.loads import Load, Unit
from inlay.scheduler.sequence import Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.scheduler.turns import DECODE_TIMES
from inlay.specs.choice import Weighed, grade_of

PARTS = 4
"""A prompt may be divided at each of so many equal parts."""
TRANSFER_BYTES = 1e9
"""What a hand-off moves in a second, where nothing better is known; only its last chunk is waited for."""
TRANSFER_SECONDS = 0.005
"""What a hand-off costs besides. Measured between two processes of one host: the second token came 4 ms later, 11 at times."""


class Way(NamedTuple):
    """`part` rows of the prompt are computed on `prefill`, the rest on `decode` (0 = all where `prefill` is). `seconds` are
    predicted to the first token; `cost` is what is to be least; 0 where no times are known. `weighed`: the best of each
    kind."""

    prefill: RunnerState
    decode: RunnerState
    part: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    weighed: tuple[Weighed, ...] = ()

    @property
    def name(self) -> str:
        """How it is called where a choice is explained."""
        return "whole" if self.prefill is self.decode else "part" if self.part else "split"


def choose_way(state: State, sequence: Sequence, prefills: Items[RunnerState], decoders: Items[RunnerState]) -> Way | None:
    """The cheapest way over runners that may be used; None where none has room. A hand-off between two of which one takes
    nothing of the other now is chosen only where the request leaves nothing else."""
    request, rows = sequence.request, len(sequence.tokens)
    roomy = [item for item in decoders if has_room(state, sequence, item, rows + 1)]
    if not roomy:
        return None
    if sequence.generated:  # most of it is kept where it was decoded before
        decode = max(roomy, key=lambda item: (item.name == sequence.decode, item.facts.slots - len(item.holders)))
        return Way(decode, decode)
    if all(item.facts.table is not None for item in (*prefills, *roomy)):
        ways = list(_ways(state, sequence, prefills, roomy))
        return _best([way for way in ways if not _is_shunned(state, way.prefill, way.decode)]) or _best(ways)
    decode = max(roomy, key=lambda item: item.facts.slots - len(item.holders))
    able = [item for item in prefills if item is decode or has_room(state, sequence, item, rows)]
    if not able:
        return None
    prefill = min(able, key=lambda item: (_is_shunned(state, item, decode), len(item.prefilling), item is not decode))
    if request.max_tokens == 1 and request.decode is None and has_room(state, sequence, prefill, rows + 1):
        decode = prefill  # one token only: nothing to hand off
    return Way(prefill, decode)


def _is_shunned(state: State, prefill: RunnerState, decode: RunnerState) -> bool:
    return (prefill.name, decode.name) in state.shunned


def _best(ways: Iterable[Way]) -> Way | None:
    """The cheapest of all, with the cheapest of each kind."""
    kinds: dict[str, Way] = {}
    for way in ways:
        if way.name not in kinds or way.cost < kinds[way.name].cost:
            kinds[way.name] = way
    best = sorted(kinds.values(), key=lambda way: way.cost)
    weighed = tuple(
        Weighed(
            way=way.name,
            prefill=way.prefill.name,
            decode=way.decode.name,
            seconds=way.seconds,
            cost=way.cost,
            grade=_grade(way),
        )
        for way in best
    )
    return best[0]._replace(weighed=weighed) if best else None


def _grade(way: Way) -> str:
    return grade_of(*(item.facts.table.grade for item in (way.prefill, way.decode) if item.facts.table is not None))


def _ways(state: State, sequence: Sequence, prefills: Items[RunnerState], decoders: Items[RunnerState]) -> Iterator[Way]:
    rows = len(sequence.tokens)
    loads = {item.name: Load(state, item) for item in (*prefills, *decoders)}
    unit = Unit(prompts=[loads[item.name] for item in prefills], steps=[loads[item.name] for item in decoders])
    least = min(loads[item.name].prompt(rows - known_rows(state, sequence, item), rows) for item in prefills)
    for decode in decoders:
        there = loads[decode.name]
        known, capacity = known_rows(state, sequence, decode), there.capacity(rows + 1)
        joining = _joining(there, unit, sequence, rows)
        for prefill in prefills:
            if prefill is decode:
                work = there.prompt(rows - known, rows)
                first = there.prompt_done(work, rows - known)
                slow = first / least + _decoding(there, unit, joining, capacity, left=rows - known)
                yield Way(decode, decode, 0, first, slow + _disturbed(there, unit, work, rows - known))
                continue
            if not has_room(state, sequence, prefill, rows):
                continue
            here, cached = loads[prefill.name], known_rows(state, sequence, prefill)
            parts = [rows * part // PARTS for part in range(1, PARTS)] if "prefill" in decode.facts.roles else []
            for part in [0, *(part for part in parts if part > known)]:
                end = part or rows
                work, rest = here.prompt(max(0, end - cached), end), there.prompt(rows - end, rows)
                moved = min(end - known, prefill.facts.chunk) * decode.facts.kv_bytes / TRANSFER_BYTES
                ready = here.prompt_done(work, max(0, end - cached))
                gap = moved + TRANSFER_SECONDS
                if part:
                    ready = max(ready + gap + rest + there.between(rest), there.prompt_done(rest, rows - end))
                    gap = 0.0
                elif there.prompts:
                    gap += there.prompt(decode.facts.chunk, rows)
                slow = ready / least + _decoding(there, unit, joining, capacity, left=rows - end, gap=gap)
                slow += _disturbed(here, unit, work, max(0, end - cached))
                yield Way(prefill, decode, part, ready, slow + _disturbed(there, unit, rest, rows - end))


class Joining(NamedTuple):
    """One more sequence on a runner that decodes it: a step with it, what it adds to a step, the tokens of its answer, and by
    how much it slows down the others together."""

    step: float
    more: float
    answer: int
    others: float


def _joining(load: Load, unit: Unit, sequence: Sequence, rows: int) -> Joining:
    capacity, answer = load.capacity(rows + 1), load.answer(sequence)
    before, after = load.step(load.members), load.step(load.members + Counter([capacity]))
    others = 0.0
    for item in load.runner.holders.values():
        if item.decode == load.runner.name:
            whole = load.answer(item)
            shared = min(answer, whole - item.generated) / whole
            others += shared * (after - before) / unit.step(item.slots[load.runner.name].capacity)
    return Joining(after, after - before, answer, others)


def _decoding(load: Load, unit: Unit, joining: Joining, capacity: int, *, left: int, gap: float = 0.0) -> float:
    """How many times as long as alone the tokens of one more sequence take there, of which `left` rows are computed there
    first and whose second token a hand-off holds up for `gap` seconds; and what they add to all others that are there."""
    answer = joining.answer
    held = min(load.queue - load.ahead(left), answer * joining.step / DECODE_TIMES)
    found = joining.others + (joining.step + (held + gap) / answer) / unit.step(capacity)
    for item, seconds in load.prompts:
        if item.goal() - item.computed > left:
            found += min(answer * joining.more, DECODE_TIMES * seconds) / unit.prompt(item.goal())
    return found


def _disturbed(load: Load, unit: Unit, work: float, rows: int) -> float:
    """What so many seconds and rows of a prompt add to those that decode there, and to the prompts that they pass."""
    if work <= 0.0:
        return 0.0
    found, step = 0.0, load.step(load.now)
    for item in load.decoders:
        answer = load.answer(item)
        held = min(work, (answer - item.generated) * step / DECODE_TIMES)
        found += held / (answer * unit.step(item.slots[load.runner.name].capacity))
    for item, _ in load.prompts:
        if item.goal() - item.computed > rows:
            found += work / unit.prompt(item.goal())
    return found
