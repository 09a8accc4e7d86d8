"""Several generations followed at once, their events handed over together in the order they came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType

from inlay.errors import InlayError
from inlay.gateway.upstream import Event, Upstream, protocol_error
from inlay.specs.generation import Failed, Finished, Generate
from inlay.wire import status_of

_log = logging.getLogger(__name__)


class Calls:
    """Use as `async with`: leaving it cancels whatever has not ended, and waits until the upstream knows."""

    def __init__(self, upstream: Upstream, requests: Sequence[Generate]) -> None:
        self._upstream = upstream
        self._requests = requests
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._open = len(requests)

    async def __aenter__(self) -> Calls:
        self._tasks = [asyncio.create_task(self._follow(i, request)) for i, request in enumerate(self._requests)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for fault in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(fault, Exception):
                _log.error("a generation call failed", exc_info=fault)

    @property
    def ended(self) -> bool:
        """Whether the last event of every call has been handed over."""
        return self._open == 0

    async def next(self, *, seconds: float | None) -> list[tuple[int, Event]]:
        """All events that are ready, each with the position of its request; waits up to `seconds` for the first.

        Empty when none came in time.
        """
        try:
            async with asyncio.timeout(seconds):
                batch = [await self._queue.get()]
        except TimeoutError:
            return []
        while not self._queue.empty():
            batch.append(self._queue.get_nowait())
        self._open -= sum(isinstance(event, (Finished, Failed)) for _, event in batch)
        return batch

    async def _follow(self, position: int, request: Generate) -> None:
        ended = False
        try:
            events = self._upstream.generate(request)
            try:
                async for event in events:
                    self._queue.put_nowait((position, event))
                    if isinstance(event, (Finished, Failed)):
                        ended = True
                        return
            finally:
                await events.aclose()
            raise protocol_error("the events ended without Finished or Failed")
        except InlayError as error:
            self._queue.put_nowait((position, _failed(error)))
            ended = True
        finally:
            if not ended:  # a fault in our own code, or cancelled: nobody may wait for ever for an event that never comes
                self._queue.put_nowait((position, Failed(call=0, status=500, code="internal_error", message="internal error")))


def _failed(error: InlayError) -> Failed:
    return Failed(
        call=0,
        status=status_of(error),
        code=error.code,
        message=error.message,
        param=getattr(error, "param", None),
        hint=error.hint,
    )
