"""Report: what is said about a plan, as data that a page, a picture and a terminal show alike. It computes nothing."""

from __future__ import annotations

from typing import Literal

import msgspec

Grade = Literal["measured", "calibrated", "modelled", "vendor"]


class Vertex(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration on a chart. `low` and `high` are the ends of its band in y; `configuration` says all of it in words."""

    x: float
    y: float
    configuration: str
    grade: Grade
    low: float | None = None
    high: float | None = None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Vertices of one frontier, or measured points. "forced" is a frontier of plans that must use a chip: it may lie below the
    one that need not, and shows where that chip costs more than it gives."""

    name: str
    kind: Literal["frontier", "baseline", "forced", "measured"]
    vertices: tuple[Vertex, ...]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One axis of throughput over interactivity. `note` says what stands behind it, or why it is empty."""

    name: str
    up: str
    traces: tuple[Trace, ...]
    across: str = "interactivity: tokens/s per user (1 / TPOT)"
    note: str = ""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of texts under a head, the first column to the left."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`asked` is the question by names; `lead` the answer in sentences, `reasons` why, `hinges` what it rests on, `doubts` the
    assumed values it uses, `sources` whose prices, power and measurements."""

    title: str
    asked: tuple[tuple[str, str], ...]
    lead: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    hinges: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    doubts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
