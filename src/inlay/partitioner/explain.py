"""What `inlay explain` prints: where everything runs, why, what else there was, and how sure that is. Pure text."""

from __future__ import annotations

from collections.abc import Sequence

from inlay.specs.goal import format_amount
from inlay.specs.partition import Alternative, Partition, PlannedRegion
from inlay.specs.profile import Estimate
from inlay.units import format_bytes


def explain(partition: Partition) -> str:
    """The whole decision as plain text in aligned columns; every figure says its grade."""
    parts = [
        _head(partition),
        _regions(partition),
        _transfers(partition),
        _floors(partition),
        _flips(partition),
        _rest(partition),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def estimate_text(estimate: Estimate | None, objective: str = "latency") -> str:
    """A figure with its interval and grade: "3.1 ms (2.9 ms to 3.4 ms, measured)", in the unit of an objective."""
    if estimate is None:
        return "not known"
    value, low, high = (format_amount(objective, item) for item in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high}, {estimate.grade})"


def _head(partition: Partition) -> str:
    devices = len({region.device for region in partition.regions})
    points = len(partition.points)
    sizes = "; ".join(
        ", ".join(f"{name}={size}" for name, size in sorted(point.items())) or "fixed" for point in partition.points
    )
    lines = [
        f"{partition.name}: {_count(len(partition.blocks), 'block')} in {_count(len(partition.regions), 'region')} on "
        f"{_count(devices, 'device')}",
        f"{partition.objective}: {estimate_text(partition.value, partition.objective)} for one pass over "
        f"{_count(points, 'point')}: {sizes}",
        *_other_figures(partition),
        f"bound: {format_amount(partition.objective, partition.bound)}, gap {100 * partition.gap:.1f} %, "
        f"by {partition.method or 'nobody'}",
    ]
    return "\n".join([*lines, f"why: {partition.reason}"] if partition.reason else lines)


def _other_figures(partition: Partition) -> list[str]:
    """The other objectives, where the plan is for more than latency alone."""
    if partition.objective == "latency" and not partition.within:
        return []
    lines = []
    for name, figure in sorted(partition.figures.items()):
        if name != partition.objective:
            budget = f", within {format_amount(name, partition.within[name])}" if name in partition.within else ""
            lines.append(f"{name}: {estimate_text(figure, name)}{budget}")
    return lines


def _regions(partition: Partition) -> str:
    rows = [["region", "blocks", "place", "lowered", "seconds", "FLOPs", "memory"]]
    rows += [_region_row(partition, region) for region in partition.regions]
    table = _table(rows)
    lines = [table[0]]
    for region, line in zip(partition.regions, table[1:], strict=True):
        lines.append(line)
        if region.reason:
            lines.append(f"    why: {region.reason}")
        lines += [f"    or {_alternative(item)}" for item in region.alternatives]
    return "\n".join(lines)


def _region_row(partition: Partition, region: PlannedRegion) -> list[str]:
    first, last = partition.blocks[region.first].name, partition.blocks[region.end - 1].name
    names = first if region.end - region.first == 1 else f"{first} .. {last}"
    numbers = f"{region.first}" if region.end - region.first == 1 else f"{region.first}-{region.end - 1}"
    return [
        region.id,
        f"{numbers} {names}",
        str(region.place),
        "whole" if region.fused or region.end - region.first == 1 else "by block",
        estimate_text(region.seconds),
        f"{100 * region.flops_share:.1f} %",
        format_bytes(region.memory),
    ]


def _transfers(partition: Partition) -> str:
    rows = [
        [item.value, format_bytes(item.size), f"{item.source} to {item.destination}", estimate_text(item.seconds)]
        for item in partition.transfers
    ]
    lines = ["transfers between devices:", *(f"  {line}" for line in _table(rows))] if rows else []
    if partition.handovers is not None:
        lines.append(f"handovers within a device: {estimate_text(partition.handovers)}")
    return "\n".join(lines)


def _floors(partition: Partition) -> str:
    if not partition.floors:
        return ""
    return "\n".join(["floors (all of it at one place):", *(f"  {_alternative(item)}" for item in partition.floors)])


def _flips(partition: Partition) -> str:
    """What would move blocks, and what was tried in vain."""
    if not partition.flips:
        return ""
    rows = [
        [f"{item.subject}:", item.what, format_amount(partition.objective, item.value), f"blocks {item.change}"]
        for item in partition.flips
        if item.change
    ]
    vain = ", ".join(f"{item.subject} {item.what}" for item in partition.flips if not item.change)
    lines = [
        "what would change it (each by itself; values are modelled on the same table of costs):",
        *(f"  {line}" for line in _table(rows)),
    ]
    if not rows:
        lines = ["what would change it: nothing that was tried"]
    return "\n".join([*lines, *([f"  not: {vain}"] if vain else [])])


def _rest(partition: Partition) -> str:
    lines = [f"pin: {pin}" for pin in partition.pins] + [f"stays in its zone: {zone}" for zone in partition.zones]
    lines += [f"state {name}: owned by {owner}" for name, owner in sorted(partition.states.items())]
    if partition.unused:
        lines.append(f"unused: {', '.join(partition.unused)}")
    return "\n".join(lines)


def _alternative(item: Alternative) -> str:
    price = estimate_text(item.seconds) if item.seconds is not None else "cannot"
    return f"{item.place}: {price}{f'; {item.reason}' if item.reason else ''}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of equal width."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
