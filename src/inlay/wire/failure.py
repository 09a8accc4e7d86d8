"""The OpenAI error object."""

from __future__ import annotations

import msgspec

from inlay.errors import InlayError, RequestError


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, in which field, under which code."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """The whole body of a failed call, and of an error inside a stream."""

    error: ErrorBody

    @classmethod
    def of(cls, error: InlayError) -> ErrorReply:
        """The reply for `error`; the hint follows the message on a line of its own."""
        status = status_of(error)
        param = error.param if isinstance(error, RequestError) else None
        return cls(error=ErrorBody(message=str(error), type=type_of(status), param=param, code=error.code))


def status_of(error: InlayError) -> int:
    """The HTTP status of an error: its own when it is a request's, 500 for any other."""
    return error.status if isinstance(error, RequestError) else 500


def type_of(status: int) -> str:
    """OpenAI's error type for an HTTP status."""
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
