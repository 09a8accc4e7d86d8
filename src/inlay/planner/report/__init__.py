"""The answer to a plan's question as people read it: charts, tables and sentences, as a web page, a picture and text."""

from __future__ import annotations

from inlay.planner.report.compose import compose
from inlay.planner.report.document import Chart, Report, Table, Trace, Vertex
from inlay.planner.report.frontiers import MeasuredVertex
from inlay.planner.report.measured import measured_vertices
from inlay.planner.report.mixes import mix_table
from inlay.planner.report.page import page
from inlay.planner.report.picture import picture, rasterised
from inlay.planner.report.sensitivity import Assumption, Swing, swing_table, swings
from inlay.planner.report.text import text
from inlay.planner.report.worth import worth_table

__all__ = [
    "Assumption",
    "Chart",
    "MeasuredVertex",
    "Report",
    "Swing",
    "Table",
    "Trace",
    "Vertex",
    "compose",
    "measured_vertices",
    "mix_table",
    "page",
    "picture",
    "rasterised",
    "swing_table",
    "swings",
    "text",
    "worth_table",
]
