"""The sets of sizes that an artifact holds code for, and the file in which each lies. Used by `lower` and `execute`."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import msgspec

from inlay.backends.xla.support import NAME
from inlay.errors import ArtifactError, UnsupportedError
from inlay.specs.artifact import Interface, LowerRequest

POINTS_FILE = "points.json"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes by symbol, the file of the code for them, and whether it is compiled before it is first run."""

    sizes: dict[str, int]
    file: str
    ahead: bool = True


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """All points of an artifact. Those compiled ahead lie beside it as machine code too, for a CPU of these instructions."""

    points: tuple[Point, ...]
    instructions: str = ""


def declared_points(request: LowerRequest, interface: Interface) -> tuple[dict[str, int], ...]:
    """All sets of sizes that are asked for: points, or every combination of a stage's buckets.

    A stage that ends in logits gives them for one row of each sequence (R = B) or for all rows (R = B * T). Raises
    UnsupportedError where neither points nor buckets are given.
    """
    if request.buckets is None:
        if not request.points:
            raise UnsupportedError(
                f"{NAME} runs declared sizes only", hint="give buckets for a stage, points for another program"
            )
        return tuple(dict(point) for point in request.points)
    ends = interface.stage is not None and interface.stage.ends
    found: list[dict[str, int]] = []
    for batch, width, capacity in product(request.buckets.batches, request.buckets.widths, request.buckets.capacities):
        sizes = {"B": batch, "T": width, "P": capacity}
        found += [{**sizes, "R": rows} for rows in dict.fromkeys((batch, batch * width))] if ends else [sizes]
    return tuple(found)


def is_ahead(sizes: dict[str, int], interface: Interface) -> bool:
    """Whether code for these sizes is compiled before it is first run: not that of a stage for all rows, which plain decoding
    never asks for."""
    return interface.stage is None or "R" not in sizes or sizes["R"] == sizes["B"]


def read_points(directory: Path) -> Points:
    """The points of an artifact. Raises ArtifactError."""
    path = directory / POINTS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Points)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"artifact file {str(path)!r} cannot be read: {error}", hint="lower it again") from error
