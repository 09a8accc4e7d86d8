"""Between the processes and the loop: what the scheduler sends goes to the processes of a runner, what they say is joined into
events of it. Before there is a loop, batches can be run by hand, to measure them.
"""

from __future__ import annotations

import asyncio

from inlay.engine.links import DeviceLink
from inlay.engine.loop import EngineLoop
from inlay.engine.metering import Metering
from inlay.engine.replica import Outcome, Replicas, Tell
from inlay.errors import DeviceError
from inlay.specs.device import BatchDone, BatchFailed, DeviceToEngine, Draft, DraftDone, EngineToDevice, Submit
from inlay.specs.schedule import Answered, Lost

Ended = BatchDone | DraftDone | BatchFailed


class Answers:
    """One for all processes of an engine."""

    def __init__(self, links: dict[str, DeviceLink], replicas: Replicas) -> None:
        self._links, self._replicas = links, replicas
        self._loop: EngineLoop | None = None
        self._metering: Metering | None = None
        self._awaited: dict[int, asyncio.Future[Ended]] = {}
        self._early: list[Lost] = []

    def serve(self, loop: EngineLoop, metering: Metering) -> None:
        """From now on everything is the loop's."""
        self._loop, self._metering = loop, metering
        for lost in self._early:
            loop.feed(lost)

    def send(self, runner: str, message: EngineToDevice) -> None:
        """Tell the processes of a runner."""
        for item in self._replicas.send(runner, message):
            self._links[item.place].send(item.message)

    async def run(self, runner: str, batch: Submit | Draft) -> Ended:
        """Run one batch by hand, before there is a loop. Raises DeviceError where the runner is lost meanwhile."""
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._awaited[batch.batch] = future
        self.send(runner, batch)
        return await future

    def heard(self, place: str, message: DeviceToEngine) -> None:
        """One message of one process."""
        if self._metering is not None:
            self._metering.worked(place, message)
        self._take(self._replicas.heard(place, message))

    def lost(self, place: str, reason: str) -> None:
        """A process has gone."""
        self._take(self._replicas.lost(place, reason))

    def _take(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Tell):
                self._links[outcome.place].send(outcome.message)
            elif self._loop is not None:
                self._loop.feed(outcome)
            else:
                self._take_by_hand(outcome)

    def _take_by_hand(self, outcome: Answered | Lost) -> None:
        if isinstance(outcome, Lost):
            self._early.append(outcome)
            for future in self._awaited.values():
                if not future.done():
                    future.set_exception(DeviceError(f"{outcome.runner} was lost while it was measured: {outcome.reason}"))
        elif isinstance(outcome.message, Ended):
            future_of = self._awaited.pop(outcome.message.batch, None)
            if future_of is not None and not future_of.done():
                future_of.set_result(outcome.message)
