"""`inlay conform`: whether a backend does what it says, against PyTorch; for those who make one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from inlay.api.conformance import conform as run_conform
from inlay.cli.bars import progress_bar
from inlay.cli.starting import ended_by_signals
from inlay.errors import InputError
from inlay.specs.conformance import CHOSEN, CONFORMANT, GOAL, NOT_CONFORMANT, OUTCOMES, Report, dump_report
from inlay.units import format_seconds

FAILED = 7
"""The exit code of a backend that is not conformant."""
SHOWN = 25


def conform(
    backend: Annotated[str, typer.Argument(help="the backend to try, as `inlay devices` lists it")],
    full: Annotated[bool, typer.Option("--full", help="everything, for a report that is published")] = False,
    section: Annotated[list[str] | None, typer.Option(help="try this section only; may be given several times")] = None,
    only: Annotated[list[str] | None, typer.Option(help="only samples whose case holds this text, such as softmax")] = None,
    seconds: Annotated[float | None, typer.Option(help="begin nothing new after so many seconds")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write the signed report into this file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
    every: Annotated[bool, typer.Option("--all", help="list every case that did not pass, also in the table")] = False,
) -> None:
    """Try a backend operator by operator and model by model against PyTorch, and say whether it is conformant."""
    if output is not None and not output.absolute().parent.is_dir():
        raise InputError(f"--output is {str(output)!r}, expected a file in a folder that exists", hint="make the folder first")
    if seconds is not None and seconds <= 0:
        raise InputError(f"--seconds is {seconds:g}, expected more than 0", hint="leave it out for the default")
    with ended_by_signals(), progress_bar() as tell:
        report = run_conform(backend, full=full, sections=section or (), only=only or (), seconds=seconds, progress=tell)
    text = dump_report(report)
    if output is not None:
        output.write_text(text)
    if as_json:
        print(text, end="")
    else:
        _show(report, every=every)
    if report.verdict == NOT_CONFORMANT:
        sys.exit(FAILED)


def _show(report: Report, *, every: bool) -> None:
    console = Console()
    title = f"{report.backend} ({report.framework} {report.framework_version}), {report.kind}, {format_seconds(report.seconds)}"
    table = Table(title=title, title_justify="left")
    table.add_column("section")
    for outcome in OUTCOMES:
        table.add_column(outcome, justify="right")
    for section in report.sections:
        table.add_row(section, *(str(report.count(outcome, section)) for outcome in OUTCOMES))
    console.print(table)
    for outcome in ("failed", "unsupported", "skipped"):
        _list(console, report, outcome, limit=None if every else SHOWN)
    if "numerics" in report.sections and report.kind != CHOSEN:
        coverage = report.coverage
        told = f"{coverage.passed} of {coverage.operators}, {coverage.share:.1%}"
        console.print(f"operators of the models taken and right: {told}; expected at least {GOAL:.0%}", highlight=False)
        for operator, reason in coverage.missing.items():
            console.print(f"  {operator}: {reason}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"verdict: {report.verdict}", style="bold green" if report.verdict == CONFORMANT else "bold red")
    for reason in report.because:
        console.print(f"  {reason}", highlight=False, markup=False, soft_wrap=True)


def _list(console: Console, report: Report, outcome: str, *, limit: int | None) -> None:
    """Every case of this outcome with its reason, at most so many."""
    found = [(section, case) for section, cases in report.sections.items() for case in cases if case.outcome == outcome]
    if found:
        console.print(f"{outcome}: {len(found)}", style="bold")
    for section, case in found[:limit]:
        console.print(f"  {section}: {case.name}: {case.reason}", highlight=False, markup=False, soft_wrap=True)
    if limit is not None and len(found) > limit:
        console.print(f"  and {len(found) - limit} more: --all lists them, -o writes them into a file", highlight=False)
