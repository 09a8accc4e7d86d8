"""Every failure as a reply in OpenAI's shape."""

from __future__ import annotations

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from inlay.errors import InlayError, RequestError
from inlay.wire import ErrorReply, status_of


def error_response(error: InlayError, *, headers: dict[str, str] | None = None) -> Response:
    """The reply for `error`: 503 says when to try again, 401 what to prove, 413 that the connection ends."""
    status = status_of(error)
    more = {401: {"www-authenticate": "Bearer"}, 413: {"connection": "close"}, 503: {"retry-after": "1"}}.get(status, {})
    body = msgspec.json.encode(ErrorReply.of(error))
    return Response(body, status_code=status, media_type="application/json", headers={**(headers or {}), **more})


async def on_inlay_error(request: Request, error: Exception) -> Response:
    """For errors of the tree."""
    if not isinstance(error, InlayError):
        raise error
    return error_response(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """For what the router refuses: unknown paths and methods."""
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == 404:
        made = RequestError(f"path {request.url.path!r} is not served", code="not_found", status=404)
    elif error.status_code == 405:
        allowed = headers.get("Allow", "another")
        found = f"method {request.method} is not served on {request.url.path!r}, expected {allowed}"
        made = RequestError(found, code="method_not_allowed", status=405)
    else:
        made = RequestError(error.detail, status=error.status_code)
    return error_response(made, headers=headers)


async def on_client_gone(request: Request, error: Exception) -> Response:
    """For a client that hung up while sending: nobody reads this."""
    return Response(status_code=499)


async def on_fault(request: Request, error: Exception) -> Response:
    """For a fault of ours: its text stays in the log."""
    return error_response(InlayError("internal error"))
