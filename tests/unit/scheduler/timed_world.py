"""The world of lists on a virtual clock: a batch takes as long as its table says, requests come at times of their own."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from scheduler_world import World

from inlay.specs.device import Submit
from inlay.specs.schedule import RunnerFacts


@dataclass
class TimedWorld(World):
    """`heard` are the times of each sequence's tokens."""

    due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    began: dict[str, float] = field(default_factory=dict)
    heard: dict[int, list[float]] = field(default_factory=dict)
    order: count[int] = field(default_factory=count)

    def at(self, time: float, act: Callable[[], None]) -> None:
        """Do this then; of equal times what was asked first."""
        heapq.heappush(self.due, (time, next(self.order), act))

    def emitted(self, number: int, token: int) -> None:
        super().emitted(number, token)
        self.heard.setdefault(number, []).append(self.now)

    def run(self) -> None:
        """Until nothing is left to do."""
        while True:
            self.begin()
            if not self.due:
                return
            self.now, _, act = heapq.heappop(self.due)
            act()

    def begin(self) -> None:
        """Every idle device obeys what it was told, up to its next batch, which takes its time."""
        while True:
            found = next((i for i, (runner, _) in enumerate(self.pending) if runner not in self.busy), None)
            if found is None:
                return
            runner, message = self.pending.pop(found)
            if isinstance(message, Submit):
                self.busy.add(runner)
                self.began[runner] = self.now
                self.at(self.now + seconds_of(self.facts_of(runner), message), lambda r=runner, m=message: self.end(r, m))  # type: ignore[misc]
            else:
                self.obey(runner, message)

    def span(self, runner: str) -> tuple[float, float]:
        return self.began[runner], self.now

    def end(self, runner: str, message: Submit) -> None:
        """A batch is over."""
        self.busy.discard(runner)
        self.obey(runner, message)


def seconds_of(facts: RunnerFacts, batch: Submit) -> float:
    """By the table, with the time of its messages."""
    assert facts.table is not None
    return facts.table.seconds(batch=batch.count, width=batch.width, past=batch.capacity) + facts.table.overhead
