"""The definitions: from records to figures. Pure.

TTFT: from sending (connecting included) to the first piece of the answer that holds generated tokens. E2E: to the last
such piece. TPOT: (E2E - TTFT) / (output tokens - 1), undefined for one token. ITL: gaps between such pieces; a piece may
hold several tokens, and `tokens_per_chunk` says how many. Interactivity: 1 / median TPOT. Rates: over the time from the
first sending to the end of the last answer, ramp and tail included. These are the
definitions of vLLM's benchmark client, which however takes every chunk with choices for such a piece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from inlay.client.load.records import RequestRecord, Spread, Summary
from inlay.specs.slo import within


def ttft_of(record: RequestRecord) -> float:
    """Seconds to the first token."""
    return record.arrivals[0]


def e2e_of(record: RequestRecord) -> float:
    """Seconds to the last token."""
    return record.arrivals[-1]


def tpot_of(record: RequestRecord) -> float | None:
    """Mean seconds a token after the first; None for one token."""
    if record.output_tokens < 2:
        return None
    return (record.arrivals[-1] - record.arrivals[0]) / (record.output_tokens - 1)


def keeps(record: RequestRecord, budgets: Mapping[str, float]) -> bool:
    """Whether a request was answered within every budget; one without a TPOT keeps that one."""
    if record.error:
        return False
    return within(budgets, ttft=ttft_of(record), tpot=tpot_of(record), e2e=e2e_of(record))


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    if not values:
        return None
    p10, p50, p90, p95, p99 = (float(item) for item in np.percentile(values, (10, 50, 90, 95, 99)))
    low, high = min(values), max(values)
    mean = sum(values) / len(values)
    return Spread(count=len(values), mean=mean, low=low, p10=p10, p50=p50, p90=p90, p95=p95, p99=p99, high=high)


def summarize(records: Sequence[RequestRecord], *, budgets: Mapping[str, float], client_cpu: float | None = None) -> Summary:
    """The figures of one level. `budgets` are seconds by the names of BUDGETS; without any there is no goodput."""
    good = [record for record in records if not record.error]
    begin = min((record.sent for record in records), default=0.0)
    duration = max((record.sent + record.seconds for record in records), default=0.0) - begin
    output, prompt = sum(record.output_tokens for record in good), sum(record.prompt_tokens for record in good)
    chunks = sum(len(record.arrivals) for record in good)
    tpots = [tpot for tpot in map(tpot_of, good) if tpot is not None]
    kept = sum(keeps(record, budgets) for record in records)
    per_token = spread(tpots)
    return Summary(
        sent=len(records),
        completed=len(good),
        errors=dict(sorted(Counter(record.error for record in records if record.error).items())),
        duration=duration,
        request_rate=_rate(len(good), duration),
        output_rate=_rate(output, duration),
        total_rate=_rate(output + prompt, duration),
        prompt_tokens=prompt,
        cached_tokens=sum(record.cached_tokens for record in good),
        output_tokens=output,
        tokens_per_chunk=_rate(output, chunks),
        counted_by_chunks=sum(record.counted_by == "chunks" for record in good),
        ttft=spread([ttft_of(record) for record in good]),
        itl=spread([later - earlier for record in good for earlier, later in pairwise(record.arrivals)]),
        tpot=per_token,
        e2e=spread([e2e_of(record) for record in good]),
        interactivity=1 / per_token.p50 if per_token is not None and per_token.p50 > 0 else None,
        goodput=_rate(kept, duration) if budgets else None,
        goodput_share=_rate(kept, len(records)) if budgets else None,
        lag=max((record.sent - record.planned for record in records if record.planned is not None), default=0.0),
        client_cpu=client_cpu,
        served=dict(Counter(route for record in good if (route := route_of(record))).most_common()),
    )


def route_of(record: RequestRecord) -> str:
    """Where one of our own servers ran it: `prefill → decode`, or the one place of both; the way, and the mode of drafts."""
    places = dict.fromkeys(str(record.served[name]) for name in ("prefill", "decode") if record.served.get(name))
    ways = [str(record.served[name]) for name in ("way", "speculation") if isinstance(record.served.get(name), str)]
    return ", ".join([" → ".join(places), *ways]) if places else ""


def _rate(count: float, per: float) -> float:
    return count / per if per > 0 else 0.0
