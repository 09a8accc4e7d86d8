"""DataSheet: what is published of one chip, each figure with where it comes from. Frozen data; read in `reading`."""

from __future__ import annotations

import msgspec

from inlay.hardware.cluster import Chip, Memory
from inlay.units import Bytes, BytesPerSecond

CONFIDENCES = ("high", "medium", "low")


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One published number in the base unit of its owner, with the ends of its range where a range is published.

    `source` says where it is from and `date` of when that is, `confidence` is one of CONFIDENCES (low = an assumption),
    `grade` one of the evidence grades: "vendor" for a data sheet, "measured", or "modelled" for an estimate.
    """

    value: float
    low: float
    high: float
    source: str
    date: str
    confidence: str
    grade: str
    note: str = ""

    @property
    def is_assumption(self) -> bool:
        """Whether whatever rests on it must say so."""
        return self.confidence == "low"


class SheetMemory(msgspec.Struct, frozen=True, kw_only=True):
    """One memory of a chip: bytes, and bytes per second where published. A `cache` holds copies: nothing is placed there."""

    name: str
    size: Figure
    bandwidth: Figure | None = None
    measured_bandwidth: Figure | None = None
    cache: bool = False


class SheetLink(msgspec.Struct, frozen=True, kw_only=True):
    """How a chip reaches others, in bytes per second, one direction, per chip: `inside` of a domain of so many chips, `outside`
    of it, and between one `pair` where there is no switch."""

    fabric: str = ""
    domain: int = 1
    inside: Figure | None = None
    pair: Figure | None = None
    outside: Figure | None = None
    host: str = ""


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars: an hour (owned by a hyperscaler or a neocloud, rented for years, on a market, on demand, committed, or an
    estimate) or once (a purchase, a whole rack, its capital cost). None = not published."""

    hour_hyperscaler: Figure | None = None
    hour_neocloud: Figure | None = None
    hour_rental: Figure | None = None
    hour_market: Figure | None = None
    hour_on_demand: Figure | None = None
    hour_committed: Figure | None = None
    hour_estimate: Figure | None = None
    purchase: Figure | None = None
    rack: Figure | None = None
    capital: Figure | None = None

    def stated(self) -> dict[str, Figure]:
        """Those there are, by name."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: figure for name, figure in found.items() if figure is not None}


class DataSheet(msgspec.Struct, frozen=True, kw_only=True):
    """One product. `memories` come fastest first; `generation` names chips of one architecture, whose
    calibrations resemble each other. `peaks` are dense operations per second by number format; `power` is
    the chip's own in watts, `provisioned_power` its share of a data centre."""

    name: str
    title: str
    vendor: str
    kind: str
    aliases: tuple[str, ...]
    generation: str
    memories: tuple[SheetMemory, ...]
    peaks: dict[str, Figure]
    power: Figure | None
    provisioned_power: Figure | None
    link: SheetLink
    prices: Prices
    framework: str
    packages: tuple[str, ...]
    note: str

    @property
    def has_price(self) -> bool:
        """False where the price is a free variable: results then give the break-even price instead."""
        return bool(self.prices.stated())

    @property
    def tiers(self) -> tuple[SheetMemory, ...]:
        """The memories that weights and KV can be placed in, fastest first."""
        return tuple(memory for memory in self.memories if not memory.cache)

    def peak(self, precision: str) -> Figure | None:
        """The peak in this format, or in the next wider one that the chip computes in when it has none of its own."""
        wider = {"fp4": ("mxint4", "fp4", "fp8", "mxint8", "blockfp8", "bf16"), "fp8": ("fp8", "mxint8", "blockfp8", "bf16")}
        wider |= {"bf16": ("bf16",), "int8": ("int8", "mxint8", "fp8", "bf16"), "int4": ("int4", "mxint4", "int8", "bf16")}
        for name in (precision, *wider.get(precision, ())):
            if name in self.peaks:
                return self.peaks[name]
        return None

    def chip(self) -> Chip:
        """What a cluster file knows of it."""
        memories = tuple(
            Memory(
                name=memory.name,
                size=Bytes(int(memory.size.value)),
                bandwidth=None if memory.bandwidth is None else BytesPerSecond(memory.bandwidth.value),
            )
            for memory in self.memories
        )
        return Chip(name=self.name, kind=self.kind, memories=memories)

    def figures(self) -> dict[str, Figure]:
        """Every figure by its path, for those who list or check them."""
        found: dict[str, Figure | None] = {}
        for memory in self.memories:
            found |= {f"{memory.name}.{key}": getattr(memory, key) for key in ("size", "bandwidth", "measured_bandwidth")}
        found |= {f"peaks.{name}": figure for name, figure in self.peaks.items()}
        found |= {"power": self.power, "provisioned_power": self.provisioned_power}
        found |= {f"link.{key}": getattr(self.link, key) for key in ("inside", "pair", "outside")}
        found |= {f"prices.{name}": figure for name, figure in self.prices.stated().items()}
        return {name: figure for name, figure in found.items() if figure is not None}

    def assumptions(self) -> tuple[str, ...]:
        """The paths of the figures that are assumptions."""
        return tuple(name for name, figure in self.figures().items() if figure.is_assumption)
