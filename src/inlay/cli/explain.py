"""`inlay explain`: where each region of a Build or of a partition file runs, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inlay import api
from inlay.specs.partition import dump_partition


def explain(
    plan: Annotated[Path, typer.Argument(help="a Build, or a partition.json")],
    as_json: Annotated[bool, typer.Option("--json", help="print the partition as JSON")] = False,
) -> None:
    """Show regions, prices, alternatives, floors, bound and reasons."""
    found = api.read_plan(plan)
    print(dump_partition(found) if as_json else api.explain_plan(found), end="" if as_json else "\n")
