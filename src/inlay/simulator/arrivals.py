"""From a Workload to requests: an open loop, a closed loop, a recorded trace, recorded sessions of agents."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Protocol

from inlay.simulator.records import Record
from inlay.simulator.simulation import Planned
from inlay.simulator.text import draw
from inlay.specs.lengths import Lengths
from inlay.specs.sessions import Session, holds_sessions, read_sessions
from inlay.specs.traces import BLOCK, Arrival, read_trace
from inlay.specs.workload import Workload

SEEDS = 1 << 31
"""Ids that begin prompts which have nothing in common."""


class WorkloadSource(Protocol):
    """A Source that knows how many of its lengths were cut."""

    fitting: Fitting

    def next_timed(self) -> Planned | None: ...

    def ended(self, record: Record) -> Planned | None: ...


def make_source(workload: Workload, *, context: int, share: tuple[int, int] = (0, 1)) -> WorkloadSource:
    """Where the requests of one engine come from. Prompt and answer have less than `context` tokens together: longer ones
    are cut. `share` (i, n): of n engines that are served in turn, requests i, i + n, ... go to this one."""
    workload.check()
    if workload.trace is None and workload.rate is not None:
        return OpenLoop(workload, context=context, share=share)
    if workload.trace is None:
        return ClosedLoop(workload, context=context)
    if holds_sessions(workload.trace):
        return Sessions(workload, read_sessions(workload.trace)[share[0] :: share[1]], context=context)
    return Replay(workload, read_trace(workload.trace), context=context, share=share)


class Fitting:
    """Lengths as they may be asked: at least a token each, together less than the context. `clipped` counts those cut."""

    def __init__(self, workload: Workload, context: int) -> None:
        self.scale, self._context = workload.scale_lengths, context
        self.clipped = 0

    def fit(self, prompt: int, output: int) -> tuple[int, int]:
        """Scaled, and cut where they do not fit: the prompt, as long as the answer is not over half."""
        prompt, output = max(1, round(prompt * self.scale)), max(1, round(output * self.scale))
        if prompt + output < self._context:
            return prompt, output
        self.clipped += 1
        output = min(output, max(1, self._context // 2))
        return max(1, min(prompt, self._context - output - 1)), output


def alone(number: int, length: int) -> tuple[int, ...]:
    """A prompt that begins as no other does."""
    return (SEEDS + number % SEEDS, *(0,) * (length - 1))


def of_blocks(blocks: tuple[int, ...], length: int, *, block: float, scope: int) -> tuple[int, ...]:
    """A prompt of recorded blocks of so many tokens: equal ids give equal tokens, within one scope. Where lengths are scaled
    blocks are too, so that prompts share as much of each other as the recorded ones."""
    tokens: list[int] = []
    for place, identity in enumerate(blocks):
        if len(tokens) >= length:
            break
        tokens += (1 + draw(scope, identity) % (SEEDS - 1),) * (round((place + 1) * block) - len(tokens))
    missing = length - len(tokens)
    if missing > 0:
        tokens += (1 + draw(scope, -1, length) % (SEEDS - 1),) * missing
    return tuple(tokens[:length])


class OpenLoop:
    """Requests come at random, whatever becomes of those before."""

    def __init__(self, workload: Workload, *, context: int, share: tuple[int, int] = (0, 1)) -> None:
        self.fitting = Fitting(workload, context)
        self._requests = itertools.islice(self._drawn(workload), share[0], workload.requests, share[1])

    def next_timed(self) -> Planned | None:
        """The next one."""
        return next(self._requests, None)

    def ended(self, record: Record) -> Planned | None:
        """Nothing follows."""
        return None

    def _drawn(self, workload: Workload) -> Iterator[Planned]:
        rng = random.Random(f"{workload.seed}/open")
        prompts = Lengths.parse(workload.prompt_tokens, name="isl")
        outputs = Lengths.parse(workload.output_tokens, name="osl")
        at = 0.0
        for number in itertools.count():
            at += rng.expovariate(workload.rate or 1.0)
            prompt, output = self.fitting.fit(prompts.draw(rng), outputs.draw(rng))
            yield Planned(at=at, prompt=alone(number, prompt), max_tokens=output)


class ClosedLoop:
    """As many requests are open as there are clients."""

    def __init__(self, workload: Workload, *, context: int) -> None:
        self.fitting = Fitting(workload, context)
        self._workload = workload
        self._rng = random.Random(f"{workload.seed}/closed")
        self._prompts = Lengths.parse(workload.prompt_tokens, name="isl")
        self._outputs = Lengths.parse(workload.output_tokens, name="osl")
        self._made = 0

    def next_timed(self) -> Planned | None:
        """The first one of each client."""
        return self._make(0.0) if self._made < (self._workload.clients or 0) else None

    def ended(self, record: Record) -> Planned | None:
        """The next one of its client."""
        return self._make(record.ended + self._workload.think)

    def _make(self, at: float) -> Planned | None:
        if self._made >= (self._workload.requests or 0):
            return None
        self._made += 1
        prompt, output = self.fitting.fit(self._prompts.draw(self._rng), self._outputs.draw(self._rng))
        return Planned(at=at, prompt=alone(self._made, prompt), max_tokens=output)


class Replay:
    """A recorded trace at its own times."""

    def __init__(
        self, workload: Workload, trace: tuple[Arrival, ...], *, context: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.fitting = Fitting(workload, context)
        self._speed = workload.speed
        self._requests = itertools.islice(enumerate(trace), share[0], workload.requests, share[1])

    def next_timed(self) -> Planned | None:
        """The next one."""
        found = next(self._requests, None)
        if found is None:
            return None
        number, item = found
        prompt, output = self.fitting.fit(item.prompt_tokens, item.output_tokens)
        made = (
            of_blocks(item.blocks, prompt, block=BLOCK * self.fitting.scale, scope=0) if item.blocks else alone(number, prompt)
        )
        return Planned(at=item.at / self._speed, prompt=made, max_tokens=output)

    def ended(self, record: Record) -> Planned | None:
        """Nothing follows."""
        return None


class Sessions:
    """Agents: each client plays one session after another, turn by turn, waiting before each as the recorded one did."""

    def __init__(self, workload: Workload, sessions: tuple[Session, ...], *, context: int) -> None:
        self.fitting = Fitting(workload, context)
        self._workload, self._sessions = workload, sessions
        self._begun, self._made = 0, 0
        self._places: dict[int, int] = {}

    def next_timed(self) -> Planned | None:
        """The first turn of each client's first session."""
        return self._begin(0.0) if self._begun < min(self._workload.clients or 1, len(self._sessions)) else None

    def ended(self, record: Record) -> Planned | None:
        """The next turn, or the next session."""
        place = self._places[record.session]
        if place < len(self._sessions[record.session].turns):
            return self._turn(record.session, place, record.ended)
        return self._begin(record.ended)

    def _begin(self, now: float) -> Planned | None:
        if self._begun >= len(self._sessions):
            return None
        self._begun += 1
        return self._turn(self._begun - 1, 0, now)

    def _turn(self, number: int, place: int, now: float) -> Planned | None:
        if self._workload.requests is not None and self._made >= self._workload.requests:
            return None
        self._made += 1
        self._places[number] = place + 1
        session = self._sessions[number]
        turn = session.turns[place]
        prompt, output = self.fitting.fit(turn.prompt_tokens, turn.output_tokens)
        made = of_blocks(turn.blocks, prompt, block=session.block * self.fitting.scale, scope=1 + number)
        at = now + (turn.think / self._workload.speed if place else 0.0)
        return Planned(at=at, prompt=made, max_tokens=output, session=number)
