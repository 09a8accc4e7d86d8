"""The page of benchmarks/plans.py: a section a case, from its records. Text only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from measuring import as_spread, show, table

LONGEST = 160
"""Characters of a reason in a table."""


def page(records: Sequence[dict[str, Any]], *, turn_seconds: float) -> str:
    """What is compared with what, the verdicts, and a section a case."""
    intro = (
        "Each case is searched with timings of its own, taken first. Then the five best plans of that search and every "
        "single place are built, each opened with a driver and a process for each device (one thread each), and run in turn, "
        "all of them opened anew several times, a turn being as many passes as take about "
        f"{1e3 * turn_seconds:.0f} ms, a pass one run at every point. *Predicted* is the plan's own figure, without driver, "
        "inputs and results; *measured* is with them. *Bytes moved* were counted by the device processes in one run at the "
        "largest point, *planned* is what the plan says."
    )
    said = [
        f"- {item['title']} (`{item['case']}`): {item['verdict']}, {show(as_spread(item['ratio']), 3)} times its time."
        for item in records
    ]
    return "\n\n".join([intro, "\n".join(said), *(section(item) for item in records)])


def section(item: dict[str, Any]) -> str:
    """One case: why, what could not be, how the plans did, and what was measured of its blocks."""
    rival = "the best single place" if any(plan["single_place"] for plan in item["plans"]) else "the best other plan"
    ordered = sorted(item["plans"], key=lambda plan: float(plan["measured_ms"]))
    verified = item["verified"]
    outcome = "passed" if verified["passed"] else "FAILED"
    text = (
        f"## {item['title']}\n\n`{item['builder']}`, cluster `{item['cluster']}`; {item['openings']} openings of "
        f"{item['rounds_per_opening']} rounds at {item['taken']}, commit {item['commit'][:12]}; load average before: "
        f"{item['load_before']}. Why this plan: {item['why']}. "
        f"Verified against the float32 reference: largest relative error of a region {verified['relative_error']:.1e}, "
        f"{outcome}."
    )
    refused = [f"- {entry['place']} cannot take all of it: {brief(entry['reason'])}" for entry in item["refused"]]
    head = ("plan", "predicted ms", "measured ms", f"times {rival}", "bytes moved", "planned")
    parts = [text, "\n".join(refused), table(head, [row(plan) for plan in ordered]), block_table(item["blocks"])]
    return "\n\n".join(part for part in parts if part)


def row(plan: dict[str, Any]) -> list[str]:
    """One plan of the table."""
    name = f"**{plan['plan']}, chosen**" if plan["chosen"] else str(plan["plan"])
    return [
        f"{name}: {', '.join(plan['regions'])}",
        f"{plan['predicted_ms']:.2f}",
        f"{plan['measured_ms']:.2f}",
        show(as_spread(plan["against"]), 3),
        str(plan["counted_bytes"]),
        str(plan["planned_bytes"]),
    ]


def block_table(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds of each block by backend, as the search measured them; equal blocks share a measurement."""
    backends = [name for name in rows[0] if name != "block"]
    body = [[str(entry["block"]), *(figure(entry[name]) for name in backends)] for entry in rows]
    head = "Milliseconds of each block alone, one pass over all points, as the search measured them:"
    return f"{head}\n\n{table(('block', *backends), body)}"


def figure(value: Any) -> str:
    """Milliseconds, or why there are none."""
    return f"{value:.3f}" if isinstance(value, float) else f"cannot: {brief(str(value))}"


def brief(reason: str) -> str:
    """A reason short enough for a table."""
    flat = " ".join(reason.replace("|", "/").split())
    return flat if len(flat) <= LONGEST else f"{flat[: LONGEST - 3]}..."
