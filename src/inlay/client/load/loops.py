"""When requests are sent: so many at once, at times of their own, or turn by turn as recorded sessions go."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from inlay.client.load.exchange import Clock
from inlay.client.load.records import Load
from inlay.client.load.workload import Asker

PAUSE_SECONDS = 0.1
"""A stream waits so long after a failed request, so that a server that refuses is not flooded."""
Sleep = Callable[[float], Awaitable[None]]


class Send(Protocol):
    """Sends one body and keeps its record; whether the answer was good."""

    def __call__(
        self, body: bytes, *, number: int, planned: float | None = None, session: int | None = None
    ) -> Coroutine[Any, Any, bool]: ...


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One level: at most `count` requests, none begun `seconds` after `zero` or later; None is without that bound."""

    asker: Asker
    load: Load
    count: int | None
    seconds: float | None
    zero: float
    clock: Clock
    sleep: Sleep
    send: Send

    async def run(self) -> None:
        """Until every request that was sent has ended."""
        await {"closed": self._closed, "sessions": self._sessions}.get(self.load.kind, self._timed)()

    async def _closed(self) -> None:
        numbers = iter(range(self.count)) if self.count is not None else itertools.count()

        async def stream() -> None:
            for number in numbers:
                if self._is_over():
                    return
                body = self.asker.body(self.asker.ask(str(self.load), number))
                if not await self.send(body, number=number):
                    await self.sleep(PAUSE_SECONDS)

        await self._at_once(stream)

    async def _timed(self) -> None:
        """Each request at its time, however many are still open. The body is made before the wait."""
        async with asyncio.TaskGroup() as group:
            for number, ask in enumerate(itertools.islice(self.asker.asks(self.load), self.count)):
                at = ask.at or 0.0
                if self.seconds is not None and at >= self.seconds:
                    return
                body = self.asker.body(ask)
                wait = self.zero + at - self.clock()
                if wait > 0:
                    await self.sleep(wait)
                group.create_task(self.send(body, number=number, planned=at))

    async def _sessions(self) -> None:
        """Without a bound each stream plays one session; with one they go on with the next sessions until it is reached."""
        has_bound = self.count is not None or self.seconds is not None
        sessions = itertools.count() if has_bound else iter(range(int(self.load.value)))
        numbers = iter(range(self.count)) if self.count is not None else itertools.count()

        async def stream() -> None:
            for session in sessions:
                for place, ask in enumerate(self.asker.session(session, speed=self.load.speed)):
                    body = self.asker.body(ask)
                    if place and ask.think:
                        await self.sleep(ask.think)
                    number = next(numbers, None)
                    if number is None or self._is_over():
                        return
                    if not await self.send(body, number=number, session=session):
                        await self.sleep(PAUSE_SECONDS)

        await self._at_once(stream)

    def _is_over(self) -> bool:
        """Whether the time is up, or the task was cancelled and something it called has swallowed that."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return True
        return self.seconds is not None and self.clock() - self.zero >= self.seconds

    async def _at_once(self, stream: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(int(self.load.value)):
                group.create_task(stream())
