"""What a running deployment does right now, read from its engine's meters. Wiring only."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from inlay.client import EngineClient
from inlay.errors import RequestError
from inlay.orchestrator import Running
from inlay.telemetry import Sample, read_samples

ANSWER_SECONDS = 5.0


class EngineWatch:
    """One connection to the engine of a running deployment; belongs to the thread that enters it."""

    def __init__(self, running: Running) -> None:
        self._client = EngineClient(running.engine_socket, key=running.key, name="watch", answer_seconds=ANSWER_SECONDS)
        self._runner = asyncio.Runner()

    def __enter__(self) -> EngineWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def read(self) -> tuple[float, list[Sample]]:
        """Seconds of a monotonic clock and every meter; none while the engine does not answer."""
        try:
            text = self._runner.run(self._client.meters())
        except RequestError:
            return time.monotonic(), []
        return time.monotonic(), list(read_samples(text))
