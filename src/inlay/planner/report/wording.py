"""A plan in words: which chips do what, how fast, and by which evidence."""

from __future__ import annotations

from inlay.planner.plans import Plan, Speculation, Stage

ROLES = {
    "serve": "serving",
    "prefill": "prefill",
    "decode": "decode",
    "draft": "drafts",
    "attention": "attention",
    "feed_forward": "feed-forward",
}


def configuration(plan: Plan) -> str:
    """All of it in one line: `4 x b200: serving, tp 4, vllm, fp4, batch 32; 2 x corsair: drafts, ...; 6 drafts, taken 0.80`."""
    parts = [_stage(stage) for stage in plan.stages]
    if plan.speculation is not None:
        parts.append(_speculation(plan.speculation))
    return f"{plan.kind}: {'; '.join(parts)}"


def chips_of(plan: Plan) -> str:
    """`8 x b200 + 4 x corsair`."""
    return " + ".join(f"{count} x {chip}" for chip, count in plan.chips.items() if count)


def performance(plan: Plan) -> str:
    """What it gives, with the band of its prediction and its grade."""
    low, high = plan.throughput * plan.low, plan.throughput * plan.high
    speed = (
        f"{plan.interactivity:.0f} tokens/s per user (TPOT {1e3 * plan.tpot:.1f} ms, {_span(plan.tpot_low, plan.tpot_high)})"
    )
    first = f"TTFT {1e3 * plan.ttft:.0f} ms ({_span(plan.ttft_low, plan.ttft_high)})"
    return f"{plan.throughput:,.0f} output tokens/s ({low:,.0f} to {high:,.0f}) at {speed}, {first}; {plan.grade}"


def _span(low: float, high: float) -> str:
    return f"{1e3 * low:.3g} to {1e3 * high:.3g} ms"


def _stage(stage: Stage) -> str:
    degrees = [
        f"{name} {degree}"
        for name, degree in (("tp", stage.tensor), ("ep", stage.expert), ("pp", stage.pipeline))
        if degree > 1 or name == "tp"
    ]
    copies = f"{stage.instances} x " if stage.instances > 1 else ""
    return (
        f"{copies}{stage.chips} {stage.chip} for {ROLES.get(stage.role, stage.role)} ({', '.join(degrees)}, "
        f"{stage.engine or 'no engine named'}, {stage.precision}, batch {stage.batch:g}, "
        f"{1e3 * stage.seconds:.2f} ms {'a pass' if stage.role == 'prefill' else 'a step'}, {stage.grade})"
    )


def _speculation(found: Speculation) -> str:
    where = "on the same chips" if found.placement == "own" else f"apart, round trip {1e6 * found.round_trip:.0f} us"
    return (
        f"{found.drafts} drafts a round {where}, each taken with {found.acceptance:.2f} (stated), "
        f"{1e6 * found.draft_seconds:.0f} us a draft"
    )
