"""Two partitions of one program side by side: which blocks go elsewhere, and what that does to time, memory and traffic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from inlay.errors import PartitionError
from inlay.specs.partition import Partition
from inlay.specs.profile import Estimate
from inlay.units import format_bytes, format_seconds


def difference(one: Partition, two: Partition) -> str:
    """The difference from `one` to `two` as text. Raises PartitionError for partitions of different programs."""
    if [block.digest for block in one.blocks] != [block.digest for block in two.blocks]:
        raise PartitionError(
            f"partitions are of {one.name!r} ({len(one.blocks)} blocks) and of {two.name!r} ({len(two.blocks)} blocks), "
            "expected two of one program",
            hint="compile the same module twice, or edit a copy of its partition.json",
        )
    return "\n".join([_seconds(one, two), *_blocks(one, two), *_memory(one, two), *_moved(one, two), *_terms(one, two)]) + "\n"


def _seconds(one: Partition, two: Partition) -> str:
    before, after = _figure(one.value), _figure(two.value)
    if one.value is None or two.value is None or one.value.value <= 0:
        return f"time: {before} -> {after}"
    if one.points != two.points:
        return f"time: {before} -> {after}, at other points, so not to be compared"
    return f"time: {before} -> {after}, {100 * (two.value.value / one.value.value - 1):+.1f} %"


def _blocks(one: Partition, two: Partition) -> list[str]:
    """Runs of blocks whose place or way of lowering differs."""
    befores, afters = _ways(one), _ways(two)
    lines = []
    for (before, after), run in groupby(range(len(one.blocks)), key=lambda at: (befores[at], afters[at])):
        if before != after:
            held = list(run)
            names = one.blocks[held[0]].name + (f" .. {one.blocks[held[-1]].name}" if len(held) > 1 else "")
            numbers = f"{held[0]}-{held[-1]}" if len(held) > 1 else f"{held[0]}"
            share = sum(one.blocks[at].flops_share for at in held)
            lines.append(f"blocks {numbers} {names} ({100 * share:.1f} % of FLOPs): {before} -> {after}")
    return lines or ["blocks: every one stays where it was"]


def _ways(partition: Partition) -> list[str]:
    """Place and way of every block."""
    found = [""] * len(partition.blocks)
    for region in partition.regions:
        way = " whole" if region.fused and region.end - region.first > 1 else ""
        found[region.first : region.end] = [f"{region.place}{way}"] * (region.end - region.first)
    return found


def _memory(one: Partition, two: Partition) -> list[str]:
    before, after = _by_device(one), _by_device(two)
    return [
        f"memory of {device}: {format_bytes(before.get(device, 0))} -> {format_bytes(after.get(device, 0))}"
        for device in dict.fromkeys([*before, *after])
        if before.get(device, 0) != after.get(device, 0)
    ]


def _by_device(partition: Partition) -> dict[str, int]:
    found: dict[str, int] = {}
    for region in partition.regions:
        found[region.device] = found.get(region.device, 0) + region.memory
    return found


def _moved(one: Partition, two: Partition) -> list[str]:
    before, after = (sum(item.size for item in partition.transfers) for partition in (one, two))
    if before == after:
        return []
    return [f"between devices: {format_bytes(before)} -> {format_bytes(after)}"]


def _terms(one: Partition, two: Partition) -> list[str]:
    """What was asked for, where that differs."""
    lines = _changed("pin", one.pins, two.pins)
    if one.points != two.points:
        lines.append(f"points: {list(one.points)} -> {list(two.points)}")
    lines += _changed("device", list(one.cluster.devices), list(two.cluster.devices))
    versions = {region.backend: region.version for region in one.regions}
    for region in two.regions:
        if versions.get(region.backend, region.version) != region.version:
            lines.append(f"{region.backend}: version {versions[region.backend]} -> {region.version}")
            versions[region.backend] = region.version
    return lines


def _changed(noun: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    lines = [f"{noun} gone: {item}" for item in before if item not in after]
    return lines + [f"{noun} added: {item}" for item in after if item not in before]


def _figure(estimate: Estimate | None) -> str:
    return "not known" if estimate is None else f"{format_seconds(estimate.value)} ({estimate.grade})"
