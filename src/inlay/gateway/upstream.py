"""The seam below the gateway: whatever can continue prompts. `inlay.client` offers two, a test a scripted one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from inlay.errors import RequestError
from inlay.specs.generation import Delta, Description, Failed, Finished, Generate, Started

Event = Started | Delta | Finished | Failed


class Upstream(Protocol):
    """Six methods, all on the gateway's event loop.

    A failure of any but `generate` is a RequestError whose status is the HTTP status; `generate` yields it as Failed.
    """

    async def describe(self) -> Description:
        """What is served: the model's name, its context length, its runners."""

    def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        """Started, then Deltas, then exactly one Finished or Failed, which ends it. `request.call` is not looked at.

        Closing the generator earlier (`aclose`, or cancelling the task that waits in it) cancels the request.
        """

    async def tokenize(
        self, *, text: str | None = None, messages: tuple[dict[str, Any], ...] | None = None, add_special: bool = True
    ) -> tuple[int, ...]:
        """Ids of a text or of chat messages, one of the two, special tokens as `generate` adds them, or none around."""

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of ids."""

    async def ready(self) -> tuple[bool, str]:
        """Whether it can serve now, and if not, why. Never raises."""

    async def meters(self) -> str:
        """Its own Prometheus text."""


def error_of(failed: Failed) -> RequestError:
    """The error that a Failed event stands for."""
    return RequestError(failed.message, hint=failed.hint, param=failed.param, code=failed.code, status=failed.status)


def protocol_error(what: str) -> RequestError:
    """The error of an upstream that broke the order of events."""
    return RequestError(f"the engine broke its protocol: {what}", code="upstream_protocol", status=502)
