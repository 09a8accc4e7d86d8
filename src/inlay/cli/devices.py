"""`inlay devices`: what there is to run on, and which frameworks are here or why not."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from inlay import api
from inlay.units import format_bytes


def devices(
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show devices, instruction sets, frameworks with version, and why an absent one is absent."""
    report = api.devices(cluster)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
        return
    console = Console()
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
    console.print(table)
    frameworks = Table(title="frameworks", title_justify="left")
    for column in ("backend", "framework", "version", "here"):
        frameworks.add_column(column)
    for item in report.backends:
        frameworks.add_row(
            item.backend, item.framework or "-", item.version or "-", "yes" if item.available else f"no: {item.reason}"
        )
    console.print(frameworks)
