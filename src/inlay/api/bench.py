"""Load on an endpoint and its results. Wiring only."""

from __future__ import annotations

import asyncio
import ipaddress
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from inlay.client.load import (
    Bench,
    BenchResult,
    Load,
    Plan,
    Target,
    Workload,
    dump_result,
    page,
    parse_budgets,
    read_result,
    shown,
)
from inlay.client.load.exchange import Address
from inlay.hardware import probe
from inlay.units import format_bytes

__all__ = [
    "BenchResult",
    "Load",
    "Plan",
    "Workload",
    "bench",
    "dump_result",
    "page",
    "parse_budgets",
    "read_result",
    "shown",
]


def bench(
    url: str,
    workload: Workload,
    plan: Plan,
    *,
    model: str | None = None,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    label: str | None = None,
    seconds: float = 600.0,
    command: str = "",
    progress: Callable[[str], None] = lambda text: None,
) -> BenchResult:
    """Measure an OpenAI-compatible endpoint. `headers` go into each request, `seconds` bounds it. SIGINT ends
    the run with what there is so far.

    Raises InputError, and RequestError when the server cannot be used at all.
    """
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": {name: version(name) for name in ("inlay", "httptools")} | {"python": platform.python_version()},
    }
    if is_local(Address.parse(url).host):
        facts["hardware"] = _hardware()
    target = Target(url, key=key, seconds=seconds, clock=time.perf_counter, headers=headers)
    running = Bench(target, workload, plan, model=model, progress=progress)
    interrupted = False
    try:
        asyncio.run(running.run())
    except KeyboardInterrupt:
        interrupted = True
    return BenchResult(
        label=label or running.model,
        url=target.url,
        model=running.model,
        facts=facts | {"server": running.server, "notes": running.notes},
        workload=msgspec.to_builtins(workload),
        budgets=plan.budgets,
        levels=tuple(running.levels),
        interrupted=interrupted,
    )


def is_local(host: str) -> bool:
    """Whether an address is this machine's own loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hardware() -> str:
    found = probe()
    chip = next(iter(found.chips.values()))
    memory = f", {format_bytes(chip.memories[0].size)}" if chip.memories else ""
    return f"{chip.name}, {len(found.devices)} cores{memory}"
