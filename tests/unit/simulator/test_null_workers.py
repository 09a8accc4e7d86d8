"""Null workers that complete by the table, behind the engine's own joining of processes and with the device's own rounds, are
sent exactly the batches that the simulator sends; and its event log replays."""

from __future__ import annotations

import heapq
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulator_world import facts, run, setup

from inlay.engine.journal import Journal, LogEntry, first_difference
from inlay.engine.replica import Region, Replicas, Tell
from inlay.scheduler import new_state, step
from inlay.simulator import Planned, SimulationSetup, make_source
from inlay.simulator.simulation import GREEDY
from inlay.specs.device import BatchDone, EngineToDevice, Interrupt, RowResult, Submit
from inlay.specs.rounds import Unsaid, following
from inlay.specs.sampling import SampledToken
from inlay.specs.schedule import Answered, Arrived, Command, Event, RunnerFacts, Send, SequenceRequest
from inlay.specs.speculation import OFF
from inlay.specs.workload import parse_workload

WORKLOAD = "isl=lognormal:90:0.7,osl=lognormal:40:0.8,rate=8,requests=120"


@dataclass
class NullWorker:
    """A device process without a device: one message after another, a batch takes the time of the table."""

    facts: RunnerFacts
    messages: deque[EngineToDevice] = field(default_factory=deque)
    flight: Submit | None = None
    began: float = 0.0
    interrupted: int | None = None
    unsaid: Unsaid = field(default_factory=Unsaid)

    def hear(self, message: EngineToDevice) -> None:
        if isinstance(message, Interrupt):
            self.interrupted = message.batch
        else:
            self.messages.append(message)

    def begin(self, now: float) -> float | None:
        """Obey until a batch runs: when it ends."""
        while self.flight is None and self.messages:
            message = self.messages.popleft()
            if isinstance(message, Submit):
                self.flight, self.began = message, now
        return None if self.flight is None else self.began + self.seconds(self.flight)

    def seconds(self, batch: Submit) -> float:
        assert self.facts.table is not None
        if not self.facts.paged:
            return self.facts.table.seconds(batch=batch.count, width=batch.width, past=batch.capacity)
        tokens, past = sum(len(row.tokens) for row in batch.rows), sum(row.past_length for row in batch.rows)
        table = self.facts.table  # rows of any width and past together: each counts with its own
        return table.fixed + table.per_row * len(batch.rows) + table.per_token * tokens + table.per_past * past

    def end(self, now: float) -> BatchDone | None:
        batch = self.flight
        assert batch is not None
        results = tuple(
            RowResult(sequence=row.sequence, sampled=() if row.sample is None else (SampledToken(token=0),))
            for row in batch.rows
        )
        done = BatchDone(batch=batch.batch, results=results, started=self.began, ended=now, prompt_tokens=0)
        again = None if self.messages or self.interrupted == batch.batch else following(batch, done)
        self.flight, self.began = again, now
        return self.unsaid.take(done, more=again is not None)


def batches_of_null_workers(given: SimulationSetup) -> list[tuple[float, str, Submit]]:
    state = new_state(given.scheduler)
    workers = {item.runner: NullWorker(item) for item in given.scheduler.facts}
    replicas = Replicas({name: [Region(name, 1, 0, 4)] for name in workers})
    source = make_source(parse_workload(WORKLOAD), context=given.scheduler.context)
    heap: list[tuple[float, int, int, object]] = []
    found: list[tuple[float, str, Submit]] = []
    serial = iter(range(10**9))

    def later(at: float, rank: int, what: object) -> None:
        heapq.heappush(heap, (at, rank, next(serial), what))

    def feed(event: Event, now: float) -> None:
        for command in step(state, event, now):
            if isinstance(command, Send):
                if isinstance(command.message, Submit):
                    found.append((now, command.runner, command.message))
                for tell in replicas.send(command.runner, command.message):
                    overhead = workers[tell.place].facts.table.overhead  # type: ignore[union-attr]
                    later(now + overhead / 2, 0, tell)

    for number in range(10**9):
        planned = source.next_timed()
        if planned is None:
            break
        later(planned.at, 3, (number, planned))
    while heap:
        now, _, _, what = heapq.heappop(heap)
        match what:
            case Tell(place=place, message=message):
                worker = workers[place]
                worker.hear(message)
                idle = worker.flight is None
                ended = worker.begin(now)
                if idle and ended is not None:
                    later(ended, 1, place)
            case str(place):
                worker = workers[place]
                said = worker.end(now)
                if said is not None:
                    later(now + worker.facts.table.overhead / 2, 2, (place, said))  # type: ignore[union-attr]
                ended = worker.begin(now)
                if ended is not None:
                    later(ended, 1, place)
            case (str(place), BatchDone() as done):
                for outcome in replicas.heard(place, done):
                    assert isinstance(outcome, Answered)
                    feed(outcome, now)
            case (int(number), Planned() as planned):
                feed(Arrived(_request(number, planned)), now)
    assert not state.sequences
    return found


def _request(number: int, planned: Planned) -> SequenceRequest:
    return SequenceRequest(
        sequence=number,
        request=str(number),
        prompt=planned.prompt,
        max_tokens=planned.max_tokens,
        sampling=GREEDY,
        entropy=bytes(16),
        speculation=OFF,
    )


PAGED = {"paged": True, "page": 16, "capacities": (1024,)}
SETUPS = {
    "steps": setup(),
    "rounds": setup(facts(rounds=16)),
    "scarce": setup(facts(rounds=16, rooms=(6, 4, 2))),
    "few": setup(facts("a", rounds=16, slots=4)),
    "paged": setup(facts(**PAGED, pages=400)),
    "paged, rounds": setup(facts(**PAGED, pages=400, rounds=16)),
    "paged, scarce": setup(facts(**PAGED, pages=70, rounds=16)),
}


@pytest.mark.parametrize("given", SETUPS.values(), ids=list(SETUPS))
def test_null_workers_are_sent_the_batches_of_the_simulator(given) -> None:
    simulated: list[tuple[float, str, Submit]] = []

    def observe(event: Event, commands: list[Command], now: float) -> None:
        simulated.extend(
            (now, item.runner, item.message) for item in commands if isinstance(item, Send) and isinstance(item.message, Submit)
        )

    run(given, WORKLOAD, fast=False, observer=observe)
    real = batches_of_null_workers(given)
    assert [item[1:] for item in simulated] == [item[1:] for item in real]
    assert [item[0] for item in simulated] == pytest.approx([item[0] for item in real])


@pytest.mark.parametrize("kind", [{"rooms": (6, 4, 2)}, {**PAGED, "pages": 70}], ids=["slots", "paged"])
def test_the_event_log_of_a_simulation_replays_and_a_changed_one_does_not(kind) -> None:
    given = setup(facts(rounds=16, **kind))
    entries: list[LogEntry] = []
    run(given, WORKLOAD, fast=False, observer=lambda event, commands, now: entries.append(LogEntry(now, event, list(commands))))
    assert first_difference(Journal(given.scheduler, entries)) is None
    fewer = msgspec.structs.replace(given.scheduler, facts=(facts(rounds=8, **kind),))
    assert first_difference(Journal(fewer, entries)) is not None
