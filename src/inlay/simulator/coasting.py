"""Fast-forward: steps of one runner after which nothing is to be decided are planned once and taken in together, no later than
the next thing happens anywhere. Exact: times are the same sums of the same numbers as those of single steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from inlay.scheduler import State, Steady, Turn, advance, steady, still_steady
from inlay.simulator.queue import REPORT, Moment
from inlay.simulator.records import Recorder
from inlay.simulator.runner import Flight, SimulatedRunner
from inlay.simulator.timing import Report, Work, reports_of

FAR = 64
"""Reports that are planned at once: most plans are broken by something sooner."""


class Planned(NamedTuple):
    """A report to come: of the `batch`-th batch from now (0 = the one under way), the `place`-th of its reports."""

    report: Report
    batch: int
    place: int


@dataclass(slots=True, eq=False)
class Coast:
    """What a runner will say by itself, of which the first `taken` reports were taken in and `batch` is under way. The last
    report is not taken in here: after it something is to be decided. It was planned after so many `changes` of the runner."""

    found: Steady
    planned: list[Planned]
    flights: list[Flight]
    changes: int
    taken: int = 0
    batch: int = 0

    @property
    def end(self) -> float:
        """When something is to be decided."""
        return self.planned[-1].report.heard


def plan(state: State, runner: SimulatedRunner) -> Coast | None:
    """How the runner goes on by itself; None where the next thing that it says must be looked at."""
    flight = runner.flight
    if flight is None or runner.text.acceptance is not None or runner.chip.runners > 1:
        return None
    held = state.runners[runner.facts.runner]
    found = steady(state, held)
    if found is None:
        return None
    turns = found.turns
    given = [0] * len(turns)
    planned: list[Planned] = []
    flights = [flight]
    said = runner.said
    batch, place = 0, flight.next
    while True:
        turn, at = turns[batch % len(turns)], batch % len(turns)
        reports = flights[batch].reports
        while place < len(reports):
            report = reports[place]
            planned.append(Planned(report, batch, place))
            given[at] += report.steps
            said = report.ended
            place += 1
            if given[at] >= min(turn.room, turn.reach) or len(planned) > FAR:
                return Coast(found, planned, flights, held.changes) if len(planned) > 1 else None
        batch, place = batch + 1, 0
        at = batch % len(turns)
        rounds = min(found.rounds, turns[at].room - given[at]) if len(turns) == 1 else 1
        flights.append(_next_flight(runner, turns[at], given[at], sent=reports[-1].heard, rounds=rounds, said=said))


def _next_flight(runner: SimulatedRunner, turn: Turn, given: int, *, sent: float, rounds: int, said: float) -> Flight:
    """The batch of a turn whose sequences were given so many tokens by then."""
    size = len(turn.members)
    if runner.facts.paged:
        past = sum([item.computed for item in turn.members]) + given * size
        work = Work(size, 1, past / size, 1)
    else:
        work = Work(turn.covered, 1, turn.capacity)
    began = sent + runner.table.overhead / 2
    reports = reports_of(work, runner.table, began=began, rounds=rounds, said=said)
    return Flight(-1, "decode", began, rounds, said, reports, work)


def holds(coast: Coast, state: State, runner: SimulatedRunner) -> bool:
    """Whether what happened meanwhile has left the plan as it is."""
    held = state.runners[runner.facts.runner]
    return still_steady(state, held, coast.found, changes=coast.changes)


def take_in(coast: Coast, state: State, runner: SimulatedRunner, recorder: Recorder, *, until: Moment) -> None:
    """Everything that was said before `until` has been said; the rest is under way as if each step had been taken."""
    first, count, last = coast.taken, coast.taken, len(coast.planned) - 1
    while count < last and (coast.planned[count].report.heard, REPORT, runner.index) < until:
        count += 1
    if count == first:
        return
    turns = coast.found.turns
    times: list[list[tuple[float, int]]] = [[] for _ in turns]
    for planned in coast.planned[first:count]:
        report = planned.report
        times[planned.batch % len(turns)].append((report.heard, report.steps))
        runner.count(report, "decode")
    following = coast.planned[count]
    flight, turn = coast.flights[following.batch], turns[following.batch % len(turns)]
    blanks = [[0] * sum([steps for _, steps in items]) for items in times]
    held, begun = state.runners[runner.facts.runner], following.batch - coast.batch
    done = sum([report.steps for report in flight.reports[: following.place]])
    advance(state, held, coast.found, tokens=blanks, batches=begun, turn=turn, rounds=flight.rounds, done=done)
    for other, items in zip(turns, times, strict=True):
        if items:
            recorder.coasted([sequence.number for sequence in other.members], items)
    runner.said = coast.planned[count - 1].report.ended
    if begun and held.flight is not None:
        flight.batch = held.flight.batch
        flight.members = tuple([item.number for item in turn.members])
        runner.begin(flight)
    flight.next, flight.tokens = following.place, done
    coast.taken, coast.batch = count, following.batch
