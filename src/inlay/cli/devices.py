"""`inlay devices`: what there is to run on, which frameworks are here or why not, and what the devices were measured to do."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from inlay import api
from inlay.cli.starting import ended_by_signals, progress
from inlay.specs.roofline import MEMORY, PRODUCTS, DeviceProfile, MachineFigures, Spread
from inlay.units import format_bytes, format_seconds


def devices(
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    measure: Annotated[bool, typer.Option("--measure", help="measure devices and links anew, and keep the figures")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show devices, instruction sets, frameworks with version, why an absent one is absent, and measured figures."""
    if measure:
        with ended_by_signals(), progress() as tell:
            report = api.devices(cluster, measure=True, progress=tell)
    else:
        report = api.devices(cluster)
    for text in report.figures.damaged:
        print(f"warning: {text}; `inlay devices --measure` measures it again", file=sys.stderr)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
        return
    console = Console()
    console.print(_devices(report))
    console.print(_frameworks(report))
    _show_figures(console, report.figures)


def _devices(report: api.DeviceReport) -> Table:
    table = Table(title="devices", title_justify="left")
    for column in ("device", "node", "chip", "cores", "memory", "instruction sets", "backends allowed"):
        table.add_column(column)
    for device in report.cluster.devices.values():
        chip = report.cluster.chips.get(device.chip)
        table.add_row(
            device.name,
            device.node,
            device.chip or "-",
            ",".join(map(str, device.cores)) or "-",
            "-" if device.memory is None else format_bytes(device.memory),
            " ".join(chip.instruction_sets) if chip else "-",
            "any" if device.backends is None else " ".join(device.backends),
        )
    return table


def _frameworks(report: api.DeviceReport) -> Table:
    table = Table(title="frameworks", title_justify="left")
    for column in ("backend", "framework", "version", "here"):
        table.add_column(column)
    for item in report.backends:
        absent = f"no: {item.reason}" + (f" ({item.hint})" if item.hint else "")
        table.add_row(item.backend, item.framework or "-", item.version or "-", "yes" if item.available else absent)
    return table


def _show_figures(console: Console, figures: MachineFigures) -> None:
    kinds: dict[str, list[str]] = {}
    for name, profile in figures.profiles.items():
        kinds.setdefault(profile.kind, []).append(name)
    for names in kinds.values():
        console.print(_profile(figures.profiles[names[0]], names))
    if figures.links:
        console.print(_links(figures))
    for name, reason in figures.absent.items():
        console.print(f"{name}: {reason}", highlight=False)
    if "not measured yet" in figures.absent.values():
        console.print("`inlay devices --measure` measures, about half a minute for each kind of device", highlight=False)


def _profile(profile: DeviceProfile, names: list[str]) -> Table:
    """One kind of device: a row for each figure, or why it is not there."""
    about = f"on {profile.device}, {_threads(profile.threads)}, {profile.taken[:10]}, load before {profile.load:.1f}"
    table = Table(title=f"{' '.join(names)} ({profile.kind})\n{about}", title_justify="left")
    for column in ("figure", "size", "best", "median", "middle half", "grade"):
        table.add_column(column)
    for dtype in PRODUCTS:
        unit = "GFLOP/s" if "float" in dtype else "GOP/s"
        size = f"{profile.sides[dtype]} wide" if dtype in profile.sides else ""
        table.add_row(f"{dtype} product", size, *_rates(profile, profile.products.get(dtype), dtype, unit))
    for direction in MEMORY:
        size = format_bytes(profile.array) if direction in profile.memory else ""
        table.add_row(f"memory {direction}", size, *_rates(profile, profile.memory.get(direction), direction, "GB/s"))
    return table


def _rates(profile: DeviceProfile, found: Spread | None, figure: str, unit: str) -> tuple[str, str, str, str]:
    if found is None:
        return profile.absent.get(figure, "not measured"), "", "", ""
    best, median, low, high = (f"{value / 1e9:.1f}" for value in (found.best, found.median, found.low, found.high))
    return f"{best} {unit}", f"{median} {unit}", f"{low} to {high}", profile.grade


def _links(figures: MachineFigures) -> Table:
    """Medians of messages with their acknowledgement, by Python at both ends."""
    small, large = (format_bytes(size) for size in (figures.links[0].small_bytes, figures.links[0].large_bytes))
    table = Table(title="messages through shared memory and back", title_justify="left")
    for column in ("between", small, large, "latency", "bandwidth", "grade", "date"):
        table.add_column(column)
    for link in figures.links:
        table.add_row(
            link.ends[0] if link.ends[0] == link.ends[1] else f"{link.ends[0]} {link.ends[1]}",
            format_seconds(link.small.median),
            format_seconds(link.large.median),
            format_seconds(link.latency),
            f"{link.bandwidth / 1e9:.1f} GB/s",
            link.grade,
            link.taken[:10],
        )
    return table


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
