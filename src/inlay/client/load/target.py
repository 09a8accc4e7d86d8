"""The server under load: its base URL, what it says of itself, and one streamed request to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inlay.client.load.answer import StreamedAnswer, said
from inlay.client.load.exchange import Address, Clock, Pool
from inlay.errors import RequestError


class Page:
    """A Sink for a whole small answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    def head(self, status: int, headers: dict[str, str], at: float) -> None:
        """Keep the status."""
        self.status = status

    def data(self, data: bytes, at: float) -> None:
        """Keep the body."""
        self.body += data


class Model(msgspec.Struct, frozen=True):
    """One entry of /v1/models."""

    id: str
    max_model_len: int | None = None


class Models(msgspec.Struct, frozen=True):
    """The answer of /v1/models."""

    data: list[Model]


class Target:
    """`url` is the base, with or without /v1; `key` and `headers` go into every request. `seconds` bounds each."""

    def __init__(
        self, url: str, *, key: str | None, seconds: float, clock: Clock, headers: Mapping[str, str] | None = None
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._pool = Pool(Address.parse(self.url), clock=clock, seconds=seconds)
        self._headers = dict(headers or {}) | ({"authorization": f"Bearer {key}"} if key else {})

    async def models(self) -> list[Model]:
        """What it serves. Raises RequestError with its own words."""
        page = await self._page("/v1/models")
        if page.status != 200:
            hint = "give its key with --key" if page.status in (401, 403) else "name the model with --model"
            found = f"{self.url}/v1/models answered {page.status}: {said(page.body)}"
            raise RequestError(found, code=f"http_{page.status}", status=page.status, hint=hint)
        try:
            return msgspec.json.decode(page.body, type=Models).data
        except msgspec.MsgspecError as error:
            found = f"{self.url}/v1/models is no list of models: {error}: {page.body[:80]!r}"
            raise RequestError(found, code="not_openai", status=502, hint="is it an OpenAI-compatible endpoint?") from error

    async def version(self) -> Any:
        """What it says at /version, None when it has no such page."""
        page = await self._page("/version")
        try:
            return msgspec.json.decode(page.body) if page.status == 200 else None
        except msgspec.MsgspecError:
            return None

    async def metrics(self) -> str:
        """Its Prometheus text; empty when it has none, or not for this key."""
        page = await self._page("/metrics")
        return page.body.decode(errors="replace") if page.status == 200 else ""

    async def stream(self, path: str, body: bytes) -> StreamedAnswer:
        """One streamed request to its end, whatever that is: the answer says what went wrong."""
        answer = StreamedAnswer()
        headers = {**self._headers, "accept": "text/event-stream"}
        try:
            await self._pool.call("POST", self._pool.address.prefix + path, headers=headers, body=body, sink=answer)
            answer.end()
        except RequestError as error:
            answer.error, answer.detail = answer.error or error.code, answer.detail or error.message
        return answer

    def close(self) -> None:
        """Hang up."""
        self._pool.close()

    async def _page(self, path: str) -> Page:
        page = Page()
        await self._pool.call("GET", self._pool.address.prefix + path, headers=self._headers, body=b"", sink=page)
        return page
