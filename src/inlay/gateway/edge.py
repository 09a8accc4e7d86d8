"""The outermost layer: who may call, and one count for each answer."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inlay.errors import RequestError
from inlay.gateway.failures import error_response
from inlay.gateway.keys import KeyRing
from inlay.telemetry import GatewayMeters

TENANT = "inlay.tenant"
"""Where the name of the calling tenant lies in the ASGI scope."""


class Edge:
    """ASGI middleware. Without a key on the ring everyone may call; with one, all paths but `open_paths` need it."""

    def __init__(
        self, app: ASGIApp, *, keys: KeyRing, open_paths: frozenset[str], paths: frozenset[str], meters: GatewayMeters
    ) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths
        self._paths = paths
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499

        async def count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admit(scope, receive, count)
        except BaseException:
            status = 500
            raise
        finally:
            self._meters.requests.labels(route=self._route(scope["path"]), status=str(status)).inc()

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and scope["path"] not in self._open_paths:
            tenant = self._keys.tenant_of(Headers(scope=scope).get("authorization"))
            if tenant is None:
                error = RequestError(
                    "the API key is missing or not known, expected `Authorization: Bearer KEY`",
                    code="invalid_api_key",
                    status=401,
                )
                await error_response(error)(scope, receive, send)
                return
            scope[TENANT] = tenant
        await self._app(scope, receive, send)

    def _route(self, path: str) -> str:
        if path.startswith("/v1/models/"):
            return "/v1/models"
        return path if path in self._paths else "other"
