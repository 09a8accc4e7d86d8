"""`inlay compile --target`: code for a device that need not be here, with what its compiler says of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import msgspec

from inlay import api
from inlay.api import targets
from inlay.cli.bars import progress_bar
from inlay.cli.starting import ended_by_signals
from inlay.specs.target import Built
from inlay.units import format_bytes


def compile_target(model: str, output: Path, *, target: str, began: float, as_json: bool) -> None:
    """Capture, lower for the target, and say what was built."""
    with ended_by_signals(), progress_bar() as tell:
        targets.check(target, output)
        captured = api.capture_file(model, progress=tell)
        built = targets.compile_for_target(captured, output, target=target, progress=tell)
    seconds = time.monotonic() - began
    if as_json:
        facts = {**msgspec.to_builtins(built), "folder": str(output), "state": targets.BUILT_NOT_RUN, "seconds": seconds}
        print(json.dumps(facts))
        return
    print(f"{built.program}: {built.blocks} blocks as one program for {target} ({built.device}), by {built.backend}")
    for line in figures_of(built):
        print(f"  {line}")
    print(targets.BUILT_NOT_RUN)
    print(f"wrote {output} in {seconds:.0f} s", file=sys.stderr)


def figures_of(built: Built) -> list[str]:
    """A line for the code, the sizes it is for, and each figure of the compiler."""
    points = "; ".join(" ".join(f"{name} {size}" for name, size in point.items()) or "fixed" for point in built.points)
    lines = [f"code: {format_bytes(built.code_bytes)} (measured)", f"sizes: {points or 'any'}"]
    for name, value in built.figures.items():
        text = format_bytes(int(value)) if "bytes" in name else f"{value:,}"
        lines.append(f"{name}: {text} (vendor: its compiler says so)")
    return lines
