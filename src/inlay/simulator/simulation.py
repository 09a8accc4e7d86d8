"""The real scheduler on a virtual clock: its commands are carried out by runners that take the time of their LatencyTables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from inlay.errors import InputError
from inlay.scheduler import new_state, step, turn_is_awaited
from inlay.simulator import queue
from inlay.simulator.coasting import Coast, holds, plan, take_in
from inlay.simulator.handoffs import HandOffs
from inlay.simulator.links import LinkSetup, SharedLink
from inlay.simulator.queue import Moment, Queue
from inlay.simulator.records import Record, Recorder
from inlay.simulator.runner import Chip, SimulatedRunner
from inlay.simulator.text import Text
from inlay.specs.device import (
    AbortTransfer,
    Draft,
    EngineToDevice,
    Interrupt,
    Move,
    OpenTransfer,
    Submit,
)
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import (
    Answered,
    Arrived,
    Command,
    Emit,
    Event,
    Fail,
    Finish,
    Lost,
    Placed,
    Preempted,
    Recompute,
    SchedulerSetup,
    Send,
    SequenceRequest,
    Tick,
    Wake,
)
from inlay.specs.speculation import AUTO, OFF

TICK_SECONDS = 1.0
"""As often as the engine, the scheduler is told that time has passed: where a hand-off is open, whose lease may end."""
PERIODIC, ASKED = 0, 1
"""Ticks that come by themselves and those that a Wake asked for."""
BY_ITSELF, FOLLOWING = 0, 1
"""Requests that are timed and those that follow others."""
GREEDY = Sampling(temperature=0.0)


class SimulationSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated: the scheduler's own setup, with a latency table for each runner; links between runners; `failures`,
    seconds by runner or device. `acceptance` is the share of positions at which a draft model agrees; without it nothing is
    drafted."""

    scheduler: SchedulerSetup
    links: tuple[LinkSetup, ...] = ()
    failures: dict[str, float] = {}
    acceptance: float | None = None
    seed: int = 0


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A request that will come at a time, in virtual seconds. `runner` is the one that must serve it; None leaves the choice to
    the scheduler."""

    at: float
    prompt: tuple[int, ...]
    max_tokens: int
    session: int = -1
    tenant: str = ""
    priority: int = 0
    runner: str | None = None


class Source(Protocol):
    """Where requests come from."""

    def next_timed(self) -> Planned | None:
        """The next request that comes by itself, in order of time."""

    def ended(self, record: Record) -> Planned | None:
        """What comes because one has ended."""


class Simulation:
    """One engine with its runners. `fast` takes steps that decide nothing together; the result is the same."""

    def __init__(
        self,
        setup: SimulationSetup,
        source: Source,
        *,
        fast: bool = True,
        keeps_times: bool = False,
        observer: Callable[[Event, list[Command], float], None] | None = None,
    ) -> None:
        self.now = 0.0
        self.setup = setup
        self.state = new_state(setup.scheduler)
        self.recorder = Recorder(keeps_times=keeps_times)
        self._source, self._fast, self._observer = source, fast, observer
        self._queue = Queue()
        self._text = Text(seed=setup.seed, acceptance=setup.acceptance)
        self.chips: dict[str, Chip] = {}
        self.runners: dict[str, SimulatedRunner] = {}
        for index, facts in enumerate(setup.scheduler.facts):
            chip = self.chips.setdefault(facts.device or facts.runner, Chip(facts.device or facts.runner))
            self.runners[facts.runner] = SimulatedRunner(index, facts, chip, self._text)
        self.handoffs = HandOffs(setup.links, {facts.runner: facts.kv_bytes for facts in setup.scheduler.facts})
        self._by_index = list(self.runners.values())
        self._coasts: dict[str, Coast] = {}
        self._numbers = 0
        self._ticks = False
        for name, at in setup.failures.items():
            for runner in self._named(name):
                self._queue.put(at, queue.FAILURE, runner.index)

    def run(self, *, progress: Callable[[int], None] = lambda ended: None) -> None:
        """Until every request has ended. `progress` hears how many have, now and then."""
        self._put_request(self._source.next_timed())
        ended = 0
        while len(self._queue):
            moment, what = self._queue.take()
            if self._is_stale(moment):
                continue
            self._happen(moment, what)
            if self._numbers - len(self.state.sequences) >= ended + 1000:
                ended = self._numbers - len(self.state.sequences)
                progress(ended)
        if self.state.sequences:
            raise RuntimeError(
                f"{len(self.state.sequences)} sequences are left and nothing is to happen: {self.state.sequences}"
            )

    def _is_stale(self, moment: Moment) -> bool:
        if moment.kind == queue.REPORT:
            return self._by_index[moment.number].expected != moment.at
        if moment.kind == queue.LINK:
            return self.handoffs.links[moment.number].expected != moment.at
        return False

    def _happen(self, moment: Moment, what: object) -> None:
        self.now = moment.at
        for name, coast in self._coasts.items():
            take_in(coast, self.state, self.runners[name], self.recorder, until=moment)
        match moment.kind:
            case queue.REPORT:
                runner = self._by_index[moment.number]
                runner.expected = None
                self._coasts.pop(runner.facts.runner, None)
                self._feed(Answered(runner.facts.runner, runner.say()))
            case queue.ROWS if isinstance(what, Submit):
                self._rows_computed(self._by_index[moment.number], what)
            case queue.LINK:
                self._sent(self.handoffs.links[moment.number])
            case queue.ARRIVAL_OF_KV:
                self._arrived(moment.number)
            case queue.TICK:
                self._ticks = self._ticks and moment.number != PERIODIC
                self._feed(Tick())
            case queue.FAILURE:
                self._fail(self._by_index[moment.number])
            case queue.REQUEST if isinstance(what, Planned):
                if moment.number == BY_ITSELF:
                    self._put_request(self._source.next_timed())
                self._request(what)
        fast = self._fast and not turn_is_awaited(self.state)
        for runner in self._by_index:
            self._schedule(runner, fast=fast)

    def _feed(self, event: Event) -> None:
        commands = step(self.state, event, self.now)
        if self._observer is not None:
            self._observer(event, commands, self.now)
        for command in commands:
            self._carry_out(command)
        if self.state.handoffs and not self._ticks:
            self._ticks = True
            self._queue.put(self.now + TICK_SECONDS, queue.TICK, PERIODIC)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Emit(sequence=number):
                self.recorder.token(number, self.now)
            case Send(runner=name, message=message):
                self._tell(self.runners[name], message)
            case Placed(sequence=number, prefill=prefill, decode=decode, cached=cached):
                record = self.recorder.records[number]
                if not record.prefill:
                    record.cached = cached
                record.prefill, record.decode = prefill, decode
            case Finish(sequence=number, reason=reason):
                self._end(number, reason)
            case Fail(sequence=number, code=code):
                self._end(number, code)
            case Wake(at=at):
                self._queue.put(at, queue.TICK, ASKED)
            case Preempted():
                self.recorder.preempted += 1
            case Recompute():
                self.recorder.recomputed += 1

    def _tell(self, runner: SimulatedRunner, message: EngineToDevice) -> None:
        """A runner obeys. A copy of rows takes no time here: next to a batch it is short."""
        if not runner.alive:
            return
        self._coasts.pop(runner.facts.runner, None)
        match message:
            case Submit():
                runner.submit(message, self.now)
                if any(row.transfer is not None for row in message.rows):
                    self._queue.put(runner.next_report.ended, queue.ROWS, runner.index, message)
                return
            case Draft():
                runner.draft(message, self.now)
                return
            case Move(source=source, destination=destination, length=length):
                runner.slots.move(source, destination, length)
            case OpenTransfer(binding=binding):
                self.handoffs.begin(binding, self.now)
            case AbortTransfer(transfer=transfer):
                self._look_at(self.handoffs.drop(transfer, self.now))
            case Interrupt() if runner.flight is not None and runner.flight.batch != message.batch:
                return
            case _:
                pass
        runner.disturb(self.now, drafts=isinstance(message, Interrupt))

    def _rows_computed(self, runner: SimulatedRunner, message: Submit) -> None:
        if runner.alive:
            for row in message.rows:
                self._look_at(self.handoffs.computed(row, self.now))

    def _look_at(self, link: SharedLink | None) -> None:
        """Something on a link has changed: when its next transfer ends."""
        if link is None:
            return
        end = link.next_end()
        if end is not None and end != link.expected:
            self._queue.put(end, queue.LINK, link.index)
        link.expected = end

    def _sent(self, link: SharedLink) -> None:
        link.expected = None
        link.advance(self.now)
        for transfer in link.take_done():
            self._queue.put(self.now + link.latency, queue.ARRIVAL_OF_KV, transfer)
        self._look_at(link)

    def _arrived(self, transfer: int) -> None:
        found = self.handoffs.arrived(transfer, self.now)
        if found is not None:
            self._feed(Answered(*found))

    def _fail(self, runner: SimulatedRunner) -> None:
        runner.lose()
        self._coasts.pop(runner.facts.runner, None)
        for link in self.handoffs.drop_of(runner.facts.runner, self.now):
            self._look_at(link)
        self._feed(Lost(runner.facts.runner, "it fails at this time of the simulation"))

    def _put_request(self, planned: Planned | None, *, timed: bool = True) -> None:
        if planned is not None:
            self._queue.put(max(planned.at, self.now), queue.REQUEST, BY_ITSELF if timed else FOLLOWING, planned)

    def _request(self, planned: Planned) -> None:
        number = self._numbers
        self._numbers += 1
        length = len(planned.prompt)
        self.recorder.arrive(number, self.now, prompt=length, wanted=planned.max_tokens, session=planned.session)
        self._text.begin(number, planned.prompt)
        request = SequenceRequest(
            sequence=number,
            request=str(number),
            prompt=planned.prompt,
            max_tokens=planned.max_tokens,
            sampling=GREEDY,
            entropy=bytes(16),
            prefill=planned.runner,
            decode=planned.runner,
            tenant=planned.tenant,
            priority=planned.priority,
            speculation=AUTO if self.setup.acceptance is not None and self.state.drafters else OFF,
        )
        self._feed(Arrived(request))

    def _end(self, number: int, reason: str) -> None:
        record = self.recorder.records[number]
        record.reason, record.ended = reason, self.now
        self._text.end(number)
        self._put_request(self._source.ended(record), timed=False)

    def _schedule(self, runner: SimulatedRunner, *, fast: bool) -> None:
        """When to look at a runner next: at its next report, or the first one after which something is to be decided."""
        if runner.flight is None:
            runner.expected = None
            return
        coast = self._coasts.pop(runner.facts.runner, None)
        if not fast or coast is None or not holds(coast, self.state, runner):
            coast = plan(self.state, runner) if fast else None
        if coast is not None:
            self._coasts[runner.facts.runner] = coast
        at = runner.next_report.heard if coast is None else coast.end
        if runner.expected != at:
            runner.expected = at
            self._queue.put(at, queue.REPORT, runner.index)

    def _named(self, name: str) -> list[SimulatedRunner]:
        """The runner of this name, or all on the device of this name."""
        found = [item for item in self._by_index if name in (item.facts.runner, item.chip.name)]
        if not found:
            known = ", ".join(dict.fromkeys((*self.runners, *self.chips)))
            raise InputError(f"what fails is {name!r}, expected one of {known}", hint="name a runner or a device")
        return found
