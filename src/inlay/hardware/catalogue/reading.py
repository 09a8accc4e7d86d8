"""Catalogue files to data sheets: `compiled`, `sources` and `chips`. The shipped file and a user's have one format."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from inlay.errors import ClusterError, InputError
from inlay.hardware.catalogue.catalogue import Catalogue
from inlay.hardware.catalogue.sheet import DataSheet, Figure, Prices, SheetLink, SheetMemory
from inlay.hardware.document import convert_document, parse_document, read_document
from inlay.units import parse_bandwidth, parse_bytes, parse_money, parse_operations, parse_power

Quantity = int | float | str
UNITS = {
    "size": parse_bytes,
    "bandwidth": parse_bandwidth,
    "operations": parse_operations,
    "power": parse_power,
    "money": parse_money,
}


class _SourceEntry(msgspec.Struct, kw_only=True):
    text: str
    date: str = ""
    grade: Literal["measured", "calibrated", "modelled", "vendor"] = "vendor"


class _FigureEntry(msgspec.Struct, kw_only=True):
    value: Quantity | tuple[Quantity, Quantity]
    source: str
    confidence: Literal["high", "medium", "low"]
    note: str = ""


FigureOrValue = _FigureEntry | Quantity


class _MemoryEntry(msgspec.Struct, kw_only=True):
    name: str
    size: FigureOrValue
    bandwidth: FigureOrValue | None = None
    measured_bandwidth: FigureOrValue | None = None
    cache: bool = False


class _LinkEntry(msgspec.Struct, kw_only=True):
    fabric: str = ""
    domain: int = 1
    inside: FigureOrValue | None = None
    pair: FigureOrValue | None = None
    outside: FigureOrValue | None = None
    host: str = ""


class _PricesEntry(msgspec.Struct, kw_only=True):
    hour_hyperscaler: FigureOrValue | None = None
    hour_neocloud: FigureOrValue | None = None
    hour_rental: FigureOrValue | None = None
    hour_market: FigureOrValue | None = None
    hour_on_demand: FigureOrValue | None = None
    hour_committed: FigureOrValue | None = None
    hour_estimate: FigureOrValue | None = None
    purchase: FigureOrValue | None = None
    rack: FigureOrValue | None = None
    capital: FigureOrValue | None = None


class _ChipEntry(msgspec.Struct, kw_only=True):
    name: str
    vendor: str
    kind: str
    memories: tuple[_MemoryEntry, ...]
    aliases: tuple[str, ...] = ()
    generation: str = ""
    peaks: dict[str, FigureOrValue] = {}
    power: FigureOrValue | None = None
    provisioned_power: FigureOrValue | None = None
    link: _LinkEntry = msgspec.field(default_factory=_LinkEntry)
    prices: _PricesEntry = msgspec.field(default_factory=_PricesEntry)
    framework: str = ""
    packages: tuple[str, ...] = ()
    note: str = ""


class _CatalogueEntry(msgspec.Struct, kw_only=True):
    chips: dict[str, _ChipEntry]
    sources: dict[str, _SourceEntry] = {}
    compiled: str = ""


def read_catalogue(*files: str | Path) -> Catalogue:
    """The shipped chips with those of `files` added; a chip of the same name takes the place of the shipped one.

    Raises ClusterError naming the file, the value and what was expected.
    """
    shipped = resources.files("inlay.hardware.catalogue").joinpath("chips.yaml").read_text(encoding="utf-8")
    found = parse_catalogue(parse_document(shipped, source="chips.yaml", error=ClusterError), source="chips.yaml")
    for file in map(Path, files):
        found = found.joined(parse_catalogue(read_document(file, error=ClusterError), source=str(file)))
    return found


def parse_catalogue(raw: object, *, source: str) -> Catalogue:
    """The catalogue in plain data of one file; `source` names it in messages."""
    entry = convert_document(raw, _CatalogueEntry, source=source, error=ClusterError)
    return Catalogue(tuple(_Reader(entry, source, name).sheet() for name in entry.chips))


class _Reader:
    """Reads one chip of a file; knows the sources that its figures name."""

    def __init__(self, file: _CatalogueEntry, source: str, name: str) -> None:
        self._file, self._source, self._name = file, source, name

    def sheet(self) -> DataSheet:
        entry = self._file.chips[self._name]
        if not entry.memories:
            raise self._wrong("memories", [], "at least one", "give size and bandwidth of the chip's memory")
        return DataSheet(
            name=self._name,
            title=entry.name,
            vendor=entry.vendor,
            kind=entry.kind,
            aliases=entry.aliases,
            generation=entry.generation,
            memories=tuple(self._memory(index, memory) for index, memory in enumerate(entry.memories)),
            peaks={name: self._needed(f"peaks.{name}", item, "operations") for name, item in entry.peaks.items()},
            power=self._figure("power", entry.power, "power"),
            provisioned_power=self._figure("provisioned_power", entry.provisioned_power, "power"),
            link=self._link(entry.link),
            prices=Prices(
                **{
                    name: self._figure(f"prices.{name}", getattr(entry.prices, name), "money")
                    for name in Prices.__struct_fields__
                }
            ),
            framework=entry.framework,
            packages=entry.packages,
            note=entry.note,
        )

    def _memory(self, index: int, entry: _MemoryEntry) -> SheetMemory:
        where = f"memories[{index}]"
        return SheetMemory(
            name=entry.name,
            size=self._needed(f"{where}.size", entry.size, "size"),
            bandwidth=self._figure(f"{where}.bandwidth", entry.bandwidth, "bandwidth"),
            measured_bandwidth=self._figure(f"{where}.measured_bandwidth", entry.measured_bandwidth, "bandwidth"),
            cache=entry.cache,
        )

    def _link(self, entry: _LinkEntry) -> SheetLink:
        if entry.domain < 1:
            raise self._wrong("link.domain", entry.domain, "at least 1", "it counts the chips of one domain")
        return SheetLink(
            fabric=entry.fabric,
            domain=entry.domain,
            inside=self._figure("link.inside", entry.inside, "bandwidth"),
            pair=self._figure("link.pair", entry.pair, "bandwidth"),
            outside=self._figure("link.outside", entry.outside, "bandwidth"),
            host=entry.host,
        )

    def _figure(self, where: str, entry: FigureOrValue | None, unit: str) -> Figure | None:
        return None if entry is None else self._needed(where, entry, unit)

    def _needed(self, where: str, entry: FigureOrValue, unit: str) -> Figure:
        """A bare value is what the file itself states, without a source: an assumption."""
        if not isinstance(entry, _FigureEntry):
            number = self._number(where, entry, unit)
            return Figure(
                value=number,
                low=number,
                high=number,
                source=f"{self._source} states it without a source",
                date=self._file.compiled,
                confidence="low",
                grade="modelled",
            )
        if entry.source not in self._file.sources:
            raise self._wrong(
                f"{where}.source", entry.source, f"one of {sorted(self._file.sources)}", "describe it under `sources`"
            )
        ends = entry.value if isinstance(entry.value, tuple) else (entry.value, entry.value)
        low, high = (self._number(where, end, unit) for end in ends)
        if low > high:
            raise self._wrong(where, list(ends), "a range from low to high", "turn it round")
        source = self._file.sources[entry.source]
        return Figure(
            value=(low + high) / 2,
            low=low,
            high=high,
            source=source.text,
            date=source.date or self._file.compiled,
            confidence=entry.confidence,
            grade=source.grade,
            note=entry.note,
        )

    def _number(self, where: str, value: Quantity, unit: str) -> float:
        try:
            number = float(UNITS[unit](value))
        except InputError as cause:
            message = cause.message.split(" is ", 1)[-1]
            raise ClusterError(f"{self._source}: chip {self._name!r}: {where} is {message}", hint=cause.hint) from cause
        if number <= 0:
            raise self._wrong(where, value, "more than zero", "leave it out where it is not known")
        return number

    def _wrong(self, where: str, value: object, expected: str, hint: str) -> ClusterError:
        return ClusterError(f"{self._source}: chip {self._name!r}: {where} is {value!r}, expected {expected}", hint=hint)
