"""The routes. Each reads its body, asks the upstream and answers; no route knows who the upstream is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from importlib.metadata import version

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from inlay.errors import InlayError
from inlay.gateway.answer import Answer, Manner
from inlay.gateway.bodies import receive_request
from inlay.gateway.directory import Directory
from inlay.gateway.edge import TENANT, Edge
from inlay.gateway.failures import on_client_gone, on_fault, on_http_error, on_inlay_error
from inlay.gateway.forms import ChatForm, CompletionForm, Form, Head
from inlay.gateway.keys import KeyRing
from inlay.gateway.limits import Limits
from inlay.gateway.requests import chat_call, completion_calls
from inlay.gateway.upstream import Upstream
from inlay.specs.generation import Generate
from inlay.telemetry import CONTENT_TYPE, GatewayMeters
from inlay.wire import (
    ChatRequest,
    CompletionRequest,
    DetokenizeReply,
    DetokenizeRequest,
    ModelList,
    TokenizeReply,
    TokenizeRequest,
    plain_messages,
)

_PROBES = frozenset({"/health", "/live", "/ready"})


def make_app(
    upstream: Upstream, *, keys: Iterable[str] = (), limits: Limits | None = None, metrics_open: bool = False
) -> Starlette:
    """The ASGI application over `upstream`.

    With `keys` (see KeyRing) every route but /health, /live and /ready needs one as `Authorization: Bearer KEY`;
    `metrics_open` frees /metrics too. Raises InputError for an unusable key.
    """
    meters = GatewayMeters()
    routes = _Routes(upstream, limits=limits or Limits(), meters=meters).table()
    edge = Middleware(
        Edge,
        keys=KeyRing(keys),
        open_paths=_PROBES | ({"/metrics"} if metrics_open else frozenset()),
        paths=frozenset(route.path for route in routes),
        meters=meters,
    )
    app = Starlette(
        routes=routes,
        middleware=[edge],
        exception_handlers={
            InlayError: on_inlay_error,
            HTTPException: on_http_error,
            ClientDisconnect: on_client_gone,
            Exception: on_fault,
        },
    )
    app.router.redirect_slashes = False
    return app


class _Routes:
    """The handlers of one gateway."""

    def __init__(self, upstream: Upstream, *, limits: Limits, meters: GatewayMeters) -> None:
        self._upstream = upstream
        self._limits = limits
        self._meters = meters
        self._directory = Directory(upstream, seconds=limits.model_seconds)

    def table(self) -> list[Route]:
        """Every path that is served."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/health", self.ready),
            Route("/ready", self.ready),
            Route("/live", self.live),
            Route("/metrics", self.metrics),
            Route("/version", self.version),
            Route("/tokenizer_info", self.tokenizer),
        ]

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return _json(ModelList(data=(await self._directory.card(),)))

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        return _json(await self._directory.card(request.path_params["name"]))

    async def completions(self, request: Request) -> Answer:
        """POST /v1/completions."""
        wanted, ignored = await receive_request(request, CompletionRequest, limits=self._limits)
        head = await self._head(wanted, prefix="cmpl", logprobs=wanted.logprobs is not None)
        tenant = request.scope.get(TENANT, "")
        calls = completion_calls(wanted, name=head.id, tenant=tenant, prompts=self._limits.prompts)
        return self._answer(wanted, calls, form=CompletionForm(head), ignored=ignored)

    async def chat(self, request: Request) -> Answer:
        """POST /v1/chat/completions."""
        wanted, ignored = await receive_request(request, ChatRequest, limits=self._limits)
        head = await self._head(wanted, prefix="chatcmpl", logprobs=bool(wanted.logprobs))
        call = chat_call(wanted, name=head.id, tenant=request.scope.get(TENANT, ""))
        return self._answer(wanted, (call,), form=ChatForm(head), ignored=ignored)

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        wanted, _ = await receive_request(request, TokenizeRequest, limits=self._limits)
        card = await self._directory.card(wanted.model)
        messages = None if wanted.messages is None else plain_messages(wanted.messages)
        add_special = wanted.add_special_tokens is not False
        tokens = await self._upstream.tokenize(text=wanted.prompt, messages=messages, add_special=add_special)
        return _json(TokenizeReply(count=len(tokens), max_model_len=card.max_model_len, tokens=tokens))

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        wanted, _ = await receive_request(request, DetokenizeRequest, limits=self._limits)
        await self._directory.card(wanted.model)
        return _json(DetokenizeReply(prompt=await self._upstream.detokenize(wanted.tokens)))

    async def ready(self, request: Request) -> Response:
        """GET /ready and /health: 503 with the reason while the upstream cannot serve."""
        ready, reason = await self._upstream.ready()
        return _json({"ready": ready, "reason": reason}, status=200 if ready else 503)

    async def live(self, request: Request) -> Response:
        """GET /live: this process answers."""
        return _json({"live": True})

    async def metrics(self, request: Request) -> Response:
        """GET and HEAD /metrics: our meters, then the upstream's when it answers."""
        text = self._meters.text()
        try:
            text += await self._upstream.meters()
        except InlayError as error:
            text += f"# the upstream's meters are missing: {' '.join(error.message.split())}\n"
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def version(self, request: Request) -> Response:
        """GET /version."""
        return _json({"version": version("inlay")})

    async def tokenizer(self, request: Request) -> Response:
        """GET /tokenizer_info: special tokens and chat template, for clients that tokenise by themselves."""
        return _json((await self._directory.description()).tokenizer)

    async def _head(self, wanted: ChatRequest | CompletionRequest, *, prefix: str, logprobs: bool) -> Head:
        card = await self._directory.card(wanted.model)
        return Head(id=f"{prefix}-{secrets.token_hex(12)}", created=int(time.time()), model=card.id, logprobs=logprobs)

    def _answer(
        self, wanted: ChatRequest | CompletionRequest, calls: tuple[Generate, ...], *, form: Form, ignored: tuple[str, ...]
    ) -> Answer:
        manner = Manner(
            stream=bool(wanted.stream),
            includes_usage=wanted.includes_usage,
            counts_continuously=wanted.counts_continuously,
            ignored=ignored,
            ping_seconds=self._limits.ping_seconds,
        )
        return Answer(self._upstream, calls, form=form, manner=manner, meters=self._meters)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
