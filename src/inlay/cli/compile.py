"""`inlay compile`: a PyTorch module cut over a cluster, each piece compiled by its device's own framework, into a Build."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from inlay import api
from inlay.cli.bars import progress_bar
from inlay.cli.builds import artifacts_line, build_facts
from inlay.cli.starting import ended_by_signals
from inlay.cli.targets import compile_target
from inlay.errors import InputError


def compile(
    model: Annotated[str, typer.Argument(help="FILE.py:FUNCTION, a builder of the module and its example call")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="the folder of the Build")] = None,
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    pin: Annotated[list[str] | None, typer.Option(help="REGEX=DEVICE/BACKEND for blocks by name or module path")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="offer only these frameworks")] = None,
    plan: Annotated[Path | None, typer.Option(help="obey this partition.json instead of searching one")] = None,
    target: Annotated[
        str | None, typer.Option(help="make code for this kind of device, which need not be here, and run nothing")
    ] = None,
    rounds: Annotated[int, typer.Option(help="rounds of each measurement")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Capture, measure, partition and lower a module; print where each region runs and why."""
    began = time.monotonic()
    if target is not None:
        compile_target(model, output or Path(f"built-{target}"), target=target, began=began, as_json=as_json)
        return
    if output is None:
        raise InputError("no folder is given, expected --output FOLDER", hint="leave it out with --target only")
    with ended_by_signals(), progress_bar() as tell:
        captured = api.capture_file(model, progress=tell)
        if plan is None:
            chosen = api.partition(
                captured, cluster=cluster, pins=pin or [], backends=backend or [], rounds=rounds, progress=tell
            )
        else:
            chosen = api.read_plan(plan)
        build = api.compile(captured, output, plan=chosen, cluster=cluster, progress=tell)
    seconds = time.monotonic() - began
    if as_json:
        print(json.dumps({**build_facts(build), "seconds": seconds}))
        return
    print(api.explain_plan(build.partition))
    print(artifacts_line(build))
    print(f"wrote {output} in {seconds:.0f} s; try: inlay run {output} --verify", file=sys.stderr)
