"""`inlay chips`: the catalogue of chips, or all that is known of one, every figure with source, date and confidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from inlay.api.chips import DataSheet, Figure, chips
from inlay.units import format_operations

ASSUMED = "assumption"


def list_chips(
    name: Annotated[str | None, typer.Argument(help="a chip, by name or alias; without it all are listed")] = None,
    file: Annotated[Path | None, typer.Option(help="YAML file with chips of your own, added to the catalogue")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show the chips that plans can be made for, with the source, date, confidence and grade of every figure."""
    found = chips(file)
    if name is not None:
        sheet = found.sheet(name)
        if as_json:
            print(
                msgspec.json.format(msgspec.json.encode({**msgspec.to_builtins(sheet), "has_price": sheet.has_price})).decode()
            )
        else:
            _show(sheet)
    elif as_json:
        print(msgspec.json.format(msgspec.json.encode(found.sheets)).decode())
    else:
        console = Console()
        console.print(_list(found.sheets))
        console.print(
            "~ rests on an assumption; data sheets are the vendor's word; `inlay chips NAME` gives sources", highlight=False
        )


def _list(sheets: tuple[DataSheet, ...]) -> Table:
    table = Table()
    for column in ("chip", "vendor", "kind", "memories, fastest first", "bf16", "fp8", "fp4", "power", "$/h", "purchase"):
        table.add_column(column)
    for sheet in sheets:
        hours = [figure for name, figure in sheet.prices.stated().items() if name.startswith("hour")]
        table.add_row(
            sheet.name,
            sheet.vendor,
            sheet.kind,
            "\n".join(
                _marked(memory.size, _bytes) + (f" at {_marked(memory.bandwidth, _rate)}" if memory.bandwidth else "")
                for memory in sheet.tiers
            ),
            *(_marked(sheet.peaks.get(form), format_operations) for form in ("bf16", "fp8", "fp4")),
            _marked(sheet.power, _watts),
            _hourly(hours) if sheet.has_price else "free",
            _marked(sheet.prices.purchase, _dollars),
        )
    return table


def _show(sheet: DataSheet) -> None:
    console = Console()
    about = [sheet.title, sheet.vendor, sheet.kind]
    if sheet.aliases:
        about.append(f"also called {', '.join(sheet.aliases)}")
    table = Table(title=f"{sheet.name}: {'; '.join(about)}", title_justify="left")
    for column in ("figure", "value", "grade", "confidence", "date", "source", "note"):
        table.add_column(column, overflow="fold")
    for path, figure in sheet.figures().items():
        confidence = ASSUMED if figure.is_assumption else figure.confidence
        table.add_row(path, _value(path, figure), figure.grade, confidence, figure.date, figure.source, figure.note)
    console.print(table)
    if sheet.link.fabric:
        console.print(
            f"link: {sheet.link.fabric}, {sheet.link.domain} chips in a domain; one direction per chip", highlight=False
        )
    if sheet.framework:
        console.print(f"its own framework: {sheet.framework}; packages: {', '.join(sheet.packages) or '-'}", highlight=False)
    if not sheet.has_price:
        console.print("no public price: it is a free variable, and results give the break-even price", highlight=False)
    if sheet.note:
        console.print(f"note: {sheet.note}", highlight=False)


def _value(path: str, figure: Figure) -> str:
    """The figure in the unit of its place, as a range where it is one."""
    show: Callable[[float], str] = _rate
    if path.startswith("prices."):
        show = _dollars
    elif path.startswith("peaks."):
        show = format_operations
    elif path.endswith(".size"):
        show = _bytes
    elif "power" in path:
        show = _watts
    return show(figure.value) if figure.low == figure.high else f"{show(figure.low)} to {show(figure.high)}"


def _marked(figure: Figure | None, show: Callable[[float], str]) -> str:
    return "" if figure is None else f"{'~' if figure.is_assumption else ''}{show(figure.value)}"


def _bytes(size: float) -> str:
    """Chips are sold in multiples of 1000, unlike what processes use."""
    return f"{size / 1e9:g} GB" if size >= 1e9 else f"{size / 1e6:g} MB"


def _rate(rate: float) -> str:
    return f"{rate / 1e12:g} TB/s" if rate >= 1e13 else f"{rate / 1e9:g} GB/s"


def _watts(watts: float) -> str:
    return f"{watts:,.0f} W"


def _dollars(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars < 100 else f"${dollars:,.0f}"


def _hourly(figures: list[Figure]) -> str:
    if not figures:
        return ""
    low, high = min(figure.low for figure in figures), max(figure.high for figure in figures)
    mark = "~" if any(figure.is_assumption for figure in figures) else ""
    return f"{mark}{low:.2f}" if low == high else f"{mark}{low:.2f} to {high:.2f}"
