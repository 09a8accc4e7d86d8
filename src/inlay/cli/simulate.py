"""`inlay simulate`: how a deployment, or an engine whose event log there is, would serve a workload."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from inlay import api
from inlay.api.simulating import (
    Quantiles,
    SimulationResult,
    parse_budgets,
    parse_workload,
    read_table,
    simulation_setup,
    tables_of,
)
from inlay.api.simulating import simulate as run
from inlay.cli.bars import progress_bar
from inlay.cli.starting import ROLE_HELP, SPECULATION_HELP, wanted
from inlay.errors import InputError
from inlay.specs.speculation import SpeculationSetup

Value = TypeVar("Value")
SETUP_HELP = "a deployment.yaml, a model folder, or an event log of `inlay serve --event-log`, with the times measured there"
WORKLOAD_HELP = (
    "KEY=VALUE,...: isl, osl (a number, or uniform:64:512, lognormal:256:0.8), rate (requests a second) or clients, think, "
    "requests, seed; for a trace speed, scale, clients"
)


def simulate(
    setup: Annotated[str, typer.Argument(help=SETUP_HELP)],
    workload: Annotated[str, typer.Option(help=WORKLOAD_HELP)] = "",
    trace: Annotated[Path | None, typer.Option(help="recorded arrivals (Mooncake, Azure) or sessions of agents")] = None,
    table: Annotated[list[str] | None, typer.Option(help="PLACE=FILE: the latency table (JSON) of a place or runner")] = None,
    goodput: Annotated[str, typer.Option(help="budgets in ms, for example ttft:200,tpot:50")] = "",
    acceptance: Annotated[float | None, typer.Option(help="share of positions at which the draft model agrees")] = None,
    fail: Annotated[list[str] | None, typer.Option(help="NAME=SECONDS: a runner or device that is lost then")] = None,
    seed: Annotated[int, typer.Option(help="of the drafts that are accepted")] = 0,
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    role: Annotated[list[str] | None, typer.Option(help=ROLE_HELP)] = None,
    context: Annotated[int | None, typer.Option(help="most tokens of one sequence")] = None,
    slots: Annotated[int, typer.Option(help="sequences a device holds at once")] = api.SLOTS,
    chunk: Annotated[int, typer.Option(help="prompt tokens of one prefill step")] = api.CHUNK,
    draft_model: Annotated[str, typer.Option(help="folder of the model that the role draft runs")] = "",
    speculation: Annotated[str, typer.Option(help=SPECULATION_HELP)] = "auto",
    each: Annotated[bool, typer.Option(help="with --json: the figures of each request too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Run the real scheduler over a workload on a virtual clock, with the times of latency tables. No device is needed."""
    asked = parse_workload(workload, trace=None if trace is None else str(trace))
    failures = {name: _seconds(name, text) for name, text in _pairs(fail, str, "--fail", "NAME=SECONDS").items()}
    tables = _pairs(table, read_table, "--table", "PLACE=FILE")
    path = Path(setup)
    is_log = path.is_file() and path.suffix not in (".yaml", ".yml")
    if is_log:
        if role or table:
            raise InputError(
                f"{setup} is an event log and --role or --table is given too", hint="a log has runners and tables of its own"
            )
        given = simulation_setup(path, acceptance=acceptance, failures=failures, seed=seed)
    else:
        deployment = wanted(
            setup,
            cluster=cluster,
            roles=role or [],
            context=context,
            slots=slots,
            chunk=chunk,
            draft_model=draft_model,
            speculation=SpeculationSetup(mode=speculation),
        )
        known = {**tables_of(deployment, path.parent), **tables}
        given = simulation_setup(deployment, tables=known, acceptance=acceptance, failures=failures, seed=seed)
    total = "" if asked.requests is None else f" of {asked.requests}"
    with progress_bar() as tell:
        tell("simulating")
        shown = sys.stderr.isatty()
        result = run(
            given,
            asked,
            budgets=parse_budgets(goodput),
            with_each=each,
            progress=lambda ended: tell(f"requests: {ended}{total}") if shown else None,
        )
    if as_json:
        print(json.dumps(msgspec.to_builtins(result)))
    else:
        _show(result)


def _pairs(items: list[str] | None, read: Callable[[str], Value], name: str, form: str) -> dict[str, Value]:
    found = {}
    for item in items or []:
        key, equals, text = item.partition("=")
        if not key or not equals:
            raise InputError(f"{name} is {item!r}, expected {form}", hint=f"write {name} {form}")
        found[key] = read(text)
    return found


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} fails at {text!r}, expected seconds", hint="write for example --fail cpu:0/null=10") from None


def _show(result: SimulationResult) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"{result.requests} requests in {result.seconds:.1f} s ({result.grade})", title_justify="left")
    for name in ("ms", "mean", "p50", "p90", "p95", "p99"):
        table.add_column(name, justify="left" if name == "ms" else "right")
    for name, found in (("TTFT", result.ttft), ("TPOT", result.tpot), ("ITL", result.itl), ("E2E", result.e2e)):
        table.add_row(name, *_row(found))
    console.print(table)
    failed = "".join(f", {count} {reason}" for reason, count in result.failed.items())
    console.print(
        f"completed {result.completed}{failed}; {result.request_rate:.3g} requests/s, {result.output_rate:.4g} tokens/s; "
        f"prefix hits {result.prefix_hit_rate:.1%}; preempted {result.preempted}, computed again {result.recomputed}"
    )
    if result.goodput is not None:
        console.print(f"within budgets {result.goodput:.3g} requests/s ({result.goodput_share or 0.0:.0%})")
    for use in result.devices:
        phases = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in use.busy.items())
        console.print(f"{use.device}: busy {use.utilisation:.0%} ({phases or 'nothing'}), idle {use.idle:.1f} s")
    if result.clipped:
        print(f"note: {result.clipped} requests were longer than the context and were cut", file=sys.stderr)


def _row(found: Quantiles | None) -> list[str]:
    if found is None:
        return ["-"] * 5
    values = (found.mean, found.p50, found.p90, found.p95, found.p99)
    return ["-" if value is None else f"{1e3 * value:.1f}" for value in values]
