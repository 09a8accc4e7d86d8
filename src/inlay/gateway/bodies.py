"""Receives a request body within its caps and reads it as one of the wire's types."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

from starlette.requests import Request

from inlay.errors import RequestError
from inlay.gateway.limits import Limits
from inlay.wire import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest, read_request

Form = TypeVar("Form", bound=CompletionRequest | ChatRequest | TokenizeRequest | DetokenizeRequest)
_HEADER_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_IGNORED_NAMED = 32


async def receive_request(request: Request, form: type[Form], *, limits: Limits) -> tuple[Form, tuple[str, ...]]:
    """The typed body and the names of ignored fields, which are safe to put into a header.

    Raises RequestError: 415 for another content type than JSON (a browser sends the others across origins without
    asking), 413 over the size, 408 when it does not arrive, 400 for what it says.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            f"content-type is {kind!r:.80}, expected 'application/json'", code="unsupported_media_type", status=415
        )
    try:
        async with asyncio.timeout(limits.body_seconds):
            body = await _receive(request, limit=limits.body_bytes)
    except TimeoutError:
        found = f"the body did not arrive within {limits.body_seconds:g} s"
        raise RequestError(found, code="request_timeout", status=408) from None
    read, ignored = read_request(body, form)
    named = [name if _HEADER_SAFE.fullmatch(name) else "?" for name in ignored[:_IGNORED_NAMED]]
    return read, tuple(named)


async def _receive(request: Request, *, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(f"{int(declared)} bytes", limit=limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(f"more than {limit} bytes", limit=limit)
        parts.append(part)
    return b"".join(parts)


def _too_large(found: str, *, limit: int) -> RequestError:
    return RequestError(f"the body has {found}, expected at most {limit}", code="request_too_large", status=413)
