"""`inlay timeline`: when each device was busy, drawn from an engine's event log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from inlay import api


def timeline(
    event_log: Annotated[Path, typer.Argument(help="a file written by `inlay serve --event-log`")],
    svg: Annotated[Path | None, typer.Option(help="also draw it into this SVG file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Draw which device computed what when, and how long devices worked at the same time (measured)."""
    found = api.timeline(event_log)
    if svg is not None:
        svg.write_text(api.timeline_drawing(found, svg=True))
    shares = {runner: found.busy_share(runner) if found.span else 0.0 for runner in found.runners}
    overlap = found.overlap_share() if found.span else 0.0
    if as_json:
        print(json.dumps({"span_seconds": found.span, "busy_share": shares, "overlap_share": overlap, "grade": "measured"}))
        return
    print(api.timeline_drawing(found))
    print(f"span {found.span:.2f} s; at least two devices busy {overlap:.1%} of it (measured). P prefill, d decode, . idle")
