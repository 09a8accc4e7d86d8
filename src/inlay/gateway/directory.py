"""Which model the upstream serves, asked again every few seconds."""

from __future__ import annotations

import time

from inlay.errors import RequestError
from inlay.gateway.upstream import Upstream
from inlay.specs.generation import Description
from inlay.wire import ModelCard


class Directory:
    """Believes a description for `seconds`, so that a burst of requests does not double the engine's messages."""

    def __init__(self, upstream: Upstream, *, seconds: float) -> None:
        self._upstream = upstream
        self._seconds = seconds
        self._known: Description | None = None
        self._until = 0.0

    async def description(self) -> Description:
        """The current description. Raises RequestError when the upstream does not answer."""
        if self._known is None or time.monotonic() >= self._until:
            self._known = await self._upstream.describe()
            self._until = time.monotonic() + self._seconds
        return self._known

    async def card(self, name: str | None = None) -> ModelCard:
        """The served model; raises RequestError (404) when `name` is given and is another."""
        known = await self.description()
        if name is not None and name != known.model:
            found = f"model {name!r:.80} is not served, expected {known.model!r}"
            raise RequestError(found, param="model", code="model_not_found", status=404)
        return ModelCard(id=known.model, created=known.created, max_model_len=known.context, root=known.model)
