"""What a load run leaves: one record a request, one level a load, one file a run. Everything in it is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inlay.errors import InputError

FORMAT = "inlay-bench/1"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How requests come: `closed` keeps `value` of them open; `open` sends `value` a second whatever the server does;
    `replay` sends them when a trace says, `value` times as fast; `sessions` keeps `value` recorded sessions going, each
    of which sends a turn when the one before is answered and its time to think has gone by, at `speed`."""

    kind: str
    value: float
    arrivals: str = ""
    speed: float = 1.0

    def __str__(self) -> str:
        names = {"closed": "concurrency", "open": "rate", "replay": "trace at speed", "sessions": "sessions"}
        return f"{names.get(self.kind, self.kind)} {self.value:g}"


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request. Times are seconds: `planned` and `sent` since the level began, the rest since `sent`.

    `arrivals`: when each piece of the answer with generated tokens in it came; `chunk_tokens`: how many tokens each held,
    where the server counts as it goes. `output_tokens` is the server's own count (`counted_by` usage) or the number of
    pieces. `error` is empty, or unreachable, connection_lost, timeout, not_http, http_STATUS, not_a_stream, not_a_chunk,
    error_in_stream, broken_stream, no_tokens. `session` is the number of the session whose turn it was. `served`
    is what our own servers say of a request: its places, its timing.
    """

    index: int
    sent: float
    seconds: float
    planned: float | None = None
    status: int = 0
    error: str = ""
    detail: str = ""
    arrivals: tuple[float, ...] = ()
    chunk_tokens: tuple[int, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    counted_by: str = ""
    finish_reason: str = ""
    session: int | None = None
    served: dict[str, Any] = {}


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Mean, percentiles (linear between neighbours) and extremes of `count` values."""

    count: int
    mean: float
    low: float
    p10: float
    p50: float
    p90: float
    p95: float
    p99: float
    high: float


class ServerDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What the server's own /metrics counted during a level; None where it does not count it.

    `acceptance` is accepted over drafted tokens, `accepted_length` committed tokens a draft round (the target's own
    included), `by_position` the acceptance at each place of a draft, `prefix_hits` the share of looked-up prompt tokens
    found in the prefix cache, `generated` the tokens it says it generated.
    """

    acceptance: float | None = None
    accepted_length: float | None = None
    by_position: tuple[float, ...] = ()
    prefix_hits: float | None = None
    generated: int | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one level; seconds, and a second. Spreads are over completed requests (`itl`: over gaps), None when
    there is none. `goodput` counts requests a second that kept every budget, `goodput_share` is of all that were sent.
    `interactivity` is 1 over the median TPOT. `lag` is the most seconds a request was sent after its planned time,
    `client_cpu` the share of a core that this client used, `served` how many requests ran where, as our own servers say."""

    sent: int
    completed: int
    errors: dict[str, int]
    duration: float
    request_rate: float
    output_rate: float
    total_rate: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    tokens_per_chunk: float
    counted_by_chunks: int
    ttft: Spread | None = None
    itl: Spread | None = None
    tpot: Spread | None = None
    e2e: Spread | None = None
    interactivity: float | None = None
    goodput: float | None = None
    goodput_share: float | None = None
    lag: float = 0.0
    client_cpu: float | None = None
    served: dict[str, int] = {}


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One load: its figures, what the server counted meanwhile, and every request."""

    load: Load
    summary: Summary
    server: ServerDelta
    requests: tuple[RequestRecord, ...]
    interrupted: bool = False


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, as it is written to a file. `facts` holds date, command, versions and, for a server on this machine,
    its hardware; `workload` what was asked of each request; `budgets` seconds by name."""

    format: str = FORMAT
    grade: str = "measured"
    label: str
    url: str
    model: str
    facts: dict[str, Any]
    workload: dict[str, Any]
    budgets: dict[str, float]
    levels: tuple[Level, ...]
    interrupted: bool = False


def dump_result(result: BenchResult) -> bytes:
    """As JSON, each request on a line of its own so that two files can be compared."""
    return msgspec.json.encode(result).replace(b'{"index":', b'\n{"index":') + b"\n"  # in a text the quotes are escaped


def read_result(path: str | Path) -> BenchResult:
    """A result from its file. Raises InputError."""
    hint = "make one with `inlay bench URL -o FILE`"
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"result {str(path)!r} cannot be read: {error.strerror}", hint=hint) from error
    try:
        result = msgspec.json.decode(text, type=BenchResult)
    except msgspec.MsgspecError as error:
        raise InputError(f"{str(path)!r} is no result of inlay bench: {error}", hint=hint) from error
    if result.format != FORMAT:
        raise InputError(f"{str(path)!r} has format {result.format!r}, expected {FORMAT!r}", hint=hint)
    return result
