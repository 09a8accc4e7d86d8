"""The live line of `inlay serve` on a terminal: what the engine does right now, from its own meters (measured)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from inlay.api.watching import EngineWatch
from inlay.orchestrator import Running
from inlay.telemetry import Sample
from inlay.units import format_seconds

SECONDS = 1.0
"""Between two readings; rates are over this time."""
PHASES = "inlay_phase_seconds"
Totals = dict[str, float]
Part = Callable[[Totals, Totals, float], str]


@contextmanager
def status_line(running: Running) -> Iterator[None]:
    """Shows the line on stderr until the block ends; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(running, console, stop), name="status line", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2 * SECONDS)


def _show(running: Running, console: Console, stop: threading.Event) -> None:
    with EngineWatch(running) as watch, Live(console=console, transient=True, auto_refresh=False) as live:
        before_at, before = watch.read()
        while not stop.wait(SECONDS):
            at, samples = watch.read()
            live.update(Text(status_text(before, samples, seconds=at - before_at), no_wrap=True, overflow="ellipsis"))
            live.refresh()
            before_at, before = at, samples


def status_text(before: Sequence[Sample], after: Sequence[Sample], *, seconds: float) -> str:
    """The line between two readings `seconds` apart. A part whose meters are not there, or say nothing, is left out."""
    if not after:
        return "the engine does not answer"
    old, new = _totals(before), _totals(after)
    parts = [part(old, new, seconds) for part in PARTS]
    last = [*_ways(before, after), *_phases(before, after), *_busy(before, after, seconds), *_modes(after)]
    return "  ".join([*filter(None, parts), *last])


def _requests(old: Totals, new: Totals, seconds: float) -> str:
    running, waiting = new.get("vllm:num_requests_running", 0.0), new.get("vllm:num_requests_waiting", 0.0)
    return f"{running:.0f} running, {waiting:.0f} waiting"


def _rate(old: Totals, new: Totals, seconds: float) -> str:
    made = new.get("vllm:generation_tokens", 0.0) - old.get("vllm:generation_tokens", 0.0)
    return f"{max(0.0, made) / seconds:.0f} tokens/s" if seconds > 0 else ""


def _cache(old: Totals, new: Totals, seconds: float) -> str:
    used = new.get("vllm:kv_cache_usage_perc")
    return "" if used is None else f"KV {used:.0%}"


def _prefix(old: Totals, new: Totals, seconds: float) -> str:
    queries = new.get("vllm:prefix_cache_queries", 0.0)
    return f"prefix hits {new.get('vllm:prefix_cache_hits', 0.0) / queries:.0%}" if queries else ""


def _acceptance(old: Totals, new: Totals, seconds: float) -> str:
    """Of the drafts since the last reading, or where there were none, of all."""
    drafted, accepted = "vllm:spec_decode_num_draft_tokens", "vllm:spec_decode_num_accepted_tokens"
    if not new.get(drafted):
        return ""
    lately = new[drafted] - old.get(drafted, 0.0)
    if lately > 0:
        return f"acceptance {(new.get(accepted, 0.0) - old.get(accepted, 0.0)) / lately:.2f}"
    return f"acceptance {new.get(accepted, 0.0) / new[drafted]:.2f}"


def _faults(old: Totals, new: Totals, seconds: float) -> str:
    again = new.get("inlay_kv_recompute", 0.0)
    return f"{again:.0f} recomputed" if again else ""


PARTS: tuple[Part, ...] = (_requests, _rate, _cache, _prefix, _acceptance, _faults)
"""The parts of the line in order."""


def _ways(before: Sequence[Sample], after: Sequence[Sample]) -> list[str]:
    """How the prompts placed since the last reading are computed: `2 whole, 1 split`."""
    placed = _changes(before, after, "inlay_plan_requests", "kind")
    said = ", ".join(f"{count:.0f} {way}" for way, count in placed.items() if count > 0)
    return [said] if said else []


def _phases(before: Sequence[Sample], after: Sequence[Sample]) -> list[str]:
    """The mean time of the batches of each phase since the last reading: `decode 4.1 ms`."""
    spent, batches = _changes(before, after, f"{PHASES}_sum", "phase"), _changes(before, after, f"{PHASES}_count", "phase")
    return [f"{phase} {format_seconds(spent[phase] / count)}" for phase, count in batches.items() if count > 0]


def _busy(before: Sequence[Sample], after: Sequence[Sample], seconds: float) -> list[str]:
    """The share of the time since the last reading in which each device that did anything computed."""
    worked = _changes(before, after, "inlay_device_busy_seconds", "device")
    return [f"{device} {spent / seconds:.0%}" for device, spent in worked.items() if spent > 0 and seconds > 0]


def _changes(before: Sequence[Sample], after: Sequence[Sample], name: str, label: str) -> Totals:
    """What a meter gained, by one of its labels."""
    found: Totals = {}
    for sign, samples in ((-1.0, before), (1.0, after)):
        for sample in samples:
            if sample.name == name and label in sample.labels:
                found[sample.labels[label]] = found.get(sample.labels[label], 0.0) + sign * sample.value
    return found


def _modes(samples: Sequence[Sample]) -> list[str]:
    """How each pair speculates: label `mode` of the sample of `inlay_spec_mode` that is 1."""
    return [
        f"{sample.labels.get('pair', '')} {sample.labels['mode']}".strip()
        for sample in samples
        if sample.name == "inlay_spec_mode" and sample.value == 1 and "mode" in sample.labels
    ]


def _totals(samples: Sequence[Sample]) -> Totals:
    found: Totals = {}
    for sample in samples:
        found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
