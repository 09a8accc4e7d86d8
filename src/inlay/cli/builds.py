"""What `compile`, `run` and `verify` print of a Build: its regions, its artifacts, and a verification."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from inlay.runtime.build import Build
from inlay.specs.partition import Partition
from inlay.specs.verification import Verification
from inlay.units import format_bytes


def build_facts(build: Build) -> dict[str, Any]:
    """A Build as plain data: regions, artifacts, plan."""
    count, size = build.artifact_count()
    partition: Partition = build.partition
    return {
        "build": str(build.folder),
        "program": build.manifest.name,
        "blocks": len(partition.blocks),
        "unique_blocks": len({block.digest for block in partition.blocks}),
        "artifacts": count,
        "artifact_bytes": size,
        "regions": [
            {
                "id": region.id,
                "device": region.device,
                "backend": region.backend,
                "blocks": [partition.blocks[at].name for at in range(region.first, region.end)],
                "flops_share": region.flops_share,
                "seconds": msgspec.to_builtins(region.seconds),
            }
            for region in partition.regions
        ],
        "value": msgspec.to_builtins(partition.value),
        "bound": partition.bound,
        "method": partition.method,
        "reason": partition.reason,
        "floors": msgspec.to_builtins(partition.floors),
    }


def artifacts_line(build: Build) -> str:
    """How many artifacts stand for how many blocks, and how large their code is."""
    count, size = build.artifact_count()
    blocks = build.partition.blocks
    loaded = Counter(region.backend for region in build.manifest.regions for _ in region.pieces)
    unique = {
        backend: len(
            {piece.artifact for region in build.manifest.regions if region.backend == backend for piece in region.pieces}
        )
        for backend in loaded
    }
    parts = ", ".join(f"{backend} {unique[backend]} for {loaded[backend]} pieces" for backend in sorted(loaded))
    return (
        f"artifacts: {count} ({parts}), {format_bytes(size)} of code; "
        f"{len(blocks)} blocks, {len({block.digest for block in blocks})} of them unique"
    )


def verification_facts(found: Verification) -> dict[str, Any]:
    """A verification as plain data, each region with its relative error."""
    facts: dict[str, Any] = msgspec.to_builtins(found)
    for region, item in zip(facts["regions"], found.regions, strict=True):
        region["passed"] = item.passed
    return {"passed": found.passed, **facts}


def show_verification(console: Console, found: Verification) -> None:
    """A table of the regions, then the results, then the node at fault where there is one."""
    table = Table(title="against the float32 reference, fresh random inputs (measured)", title_justify="left")
    for column in ("region", "place", "relative error alone", "carried", "tolerance", "computes in", "verdict"):
        table.add_column(column, no_wrap=column in ("region", "place", "verdict"))
    for region in found.regions:
        table.add_row(
            region.id,
            f"{region.device}/{region.backend}",
            f"{region.relative_error:.1e}",
            f"{region.carried_error:.1e}",
            f"{region.tolerance:.0e}",
            region.compute,
            "within" if region.passed else f"OUTSIDE ({region.non_finite} not finite)" if region.non_finite else "OUTSIDE",
        )
    console.print(table)
    console.print("results end to end: " + ", ".join(f"{name} {error:.1e}" for name, error in found.results.items()))
    points = "; ".join(" ".join(f"{name} {size}" for name, size in point.items()) or "fixed" for point in found.points)
    console.print(f"sizes: {points}; seed {found.seed}")
    culprit = found.culprit
    if culprit is not None and not culprit.node:
        console.print(f"region {culprit.region}: the node at fault was not found: {culprit.reason}")
    elif culprit is not None:
        console.print(
            f"the error enters region {culprit.region} at node {culprit.node} = {culprit.operator} "
            f"({culprit.path or 'top level'}, {culprit.source or 'source unknown'}): {culprit.relative_error:.1e}"
        )
