"""A report as plain text of a terminal's width; charts are in the page, here each is the rows of its frontiers' ends."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from inlay.planner.report.document import Report, Table

WIDTH = 110


def text(report: Report, *, width: int = WIDTH) -> str:
    """Title, question, answer, tables, doubts and sources."""
    longest = max((len(name) for name, _ in report.asked), default=0)
    asked = [
        line
        for name, value in report.asked
        for line in _wrapped(value, width, first=f"  {name:<{longest}}  ", later=" " * (longest + 4))
    ]
    parts = [report.title, *asked, ""]
    parts += [line for sentence in report.lead for line in textwrap.wrap(sentence, width)]
    parts += _listed("why", report.reasons, width)
    parts += _listed("what it hinges on", report.hinges, width)
    for table in report.tables:
        parts += ["", *_table(table, width)]
    parts += _listed("assumed values in this answer", report.doubts, width)
    parts += _listed("sources", report.sources, width)
    return "\n".join(parts) + "\n"


def _listed(title: str, lines: Iterable[str], width: int) -> list[str]:
    shown = [part for line in lines for part in _wrapped(line, width, first="  - ", later="    ")]
    return ["", title, *shown] if shown else []


def _wrapped(line: str, width: int, *, first: str, later: str) -> list[str]:
    return textwrap.wrap(line, width, initial_indent=first, subsequent_indent=later) or [first]


def _table(table: Table, width: int) -> list[str]:
    rows = [table.head, *table.rows]
    columns = [max(len(row[index]) for row in rows) for index in range(len(table.head))]
    lines = [table.title]
    for row in rows:
        cells = [
            cell.ljust(size) if not index else cell.rjust(size)
            for index, (cell, size) in enumerate(zip(row, columns, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return [*lines, *(_wrapped(table.note, width, first="  ", later="  ") if table.note else [])]
