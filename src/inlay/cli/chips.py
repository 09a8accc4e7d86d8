"""`inlay chips`: the catalogue of chips, or all that is known of one, every figure with source, date and confidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.padding import Padding
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
            "bf16, fp8, fp4: dense TFLOPS, as the vendor says. ~ rests on an assumption. `inlay chips NAME` gives sources.",
            highlight=False,
        )


def _list(sheets: tuple[DataSheet, ...]) -> Table:
    """As wide as a terminal of 80 columns: what is longer is `inlay chips NAME`'s matter."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("chip", "memory", "bf16", "fp8", "fp4", "W", "$/h"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("chip", "memory") else "right")
    for sheet in sheets:
        hours = [figure for name, figure in sheet.prices.stated().items() if name.startswith("hour")]
        table.add_row(
            sheet.name,
            "\n".join(
                _marked(memory.size, _bytes) + (f", {_marked(memory.bandwidth, _rate)}" if memory.bandwidth else "")
                for memory in sheet.tiers
            ),
            *(_marked(sheet.peaks.get(form), _tera) for form in ("bf16", "fp8", "fp4")),
            _marked(sheet.power, lambda watts: f"{watts:.0f}"),
            _hourly(hours) if sheet.has_price else "free",
        )
    return table


def _show(sheet: DataSheet) -> None:
    console = Console()
    about = [sheet.title, sheet.vendor, sheet.kind]
    if sheet.aliases:
        about.append(f"also called {', '.join(sheet.aliases)}")
    console.print(f"{sheet.name}: {'; '.join(about)}", highlight=False)
    sources = list(dict.fromkeys(figure.source for figure in sheet.figures().values()))
    paths = max(map(len, sheet.figures()))
    values = max(len(_value(path, figure)) for path, figure in sheet.figures().items())
    for path, figure in sheet.figures().items():
        confidence = ASSUMED if figure.is_assumption else figure.confidence
        about_it = f"{figure.grade}, {confidence}, {figure.date} ({sources.index(figure.source) + 1})"
        console.print(f"  {path:<{paths}}  {_value(path, figure):>{values}}  {about_it}", highlight=False)
        if figure.note:
            console.print(Padding(figure.note, (0, 0, 0, 6)), highlight=False)
    for number, source in enumerate(sources, 1):
        console.print(f"({number}) {source}", highlight=False)
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
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:g} MB"


def _rate(rate: float) -> str:
    return f"{rate / 1e12:.3g} TB/s" if rate >= 1e12 else f"{rate / 1e9:g} GB/s"


def _tera(rate: float) -> str:
    return f"{rate / 1e12:.0f}"


def _watts(watts: float) -> str:
    return f"{watts:,.0f} W"


def _dollars(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars < 100 else f"${dollars:,.0f}"


def _hourly(figures: list[Figure]) -> str:
    if not figures:
        return ""
    low, high = min(figure.low for figure in figures), max(figure.high for figure in figures)
    mark = "~" if any(figure.is_assumption for figure in figures) else ""
    return f"{mark}{low:.2f}" if low == high else f"{mark}{low:.2f}-{high:.2f}"
