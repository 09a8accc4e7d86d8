"""`inlay explain`: where each region of a Build or of a partition file runs, and why; drawn; and against another plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inlay import api
from inlay.api.programs import compare_plans, draw_plan
from inlay.errors import InputError
from inlay.specs.partition import dump_partition


def explain(
    plan: Annotated[Path, typer.Argument(help="a Build, or a partition.json")],
    against: Annotated[Path | None, typer.Option(help="say what differs from this Build or partition.json instead")] = None,
    svg: Annotated[Path | None, typer.Option(help="also draw the cut into this SVG file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the partition as JSON")] = False,
) -> None:
    """Show regions, prices, alternatives, floors, bound and reasons."""
    if as_json and against is not None:
        raise InputError("--json is given with --against, expected one of them", hint="a difference is told as text only")
    found = api.read_plan(plan)
    if svg is not None:
        try:
            svg.write_text(draw_plan(found))
        except OSError as error:
            raise InputError(
                f"--svg is {str(svg)!r}, expected a file that can be written: {error.strerror}",
                hint="name one in a folder that exists",
            ) from error
    if against is not None:
        print(compare_plans(api.read_plan(against), found), end="")
    else:
        print(dump_partition(found) if as_json else api.explain_plan(found), end="" if as_json else "\n")
