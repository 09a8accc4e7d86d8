"""A chart of a report as a picture file: SVG always, PNG through the optional library resvg."""

from __future__ import annotations

import importlib
from typing import Any

from inlay.errors import UnsupportedError
from inlay.planner.report.chart import drawn, trace_names
from inlay.planner.report.document import Chart, Report

SCALE = 2


def picture(report: Report, chart: Chart) -> str:
    """The SVG file of one chart, with its key, on white."""
    return drawn(chart, trace_names(report), is_alone=True)


def rasterised(svg: str) -> bytes:
    """The PNG of an SVG file. Raises UnsupportedError where the library is not installed."""
    try:
        library: Any = importlib.import_module("resvg_py")
    except ModuleNotFoundError as cause:
        raise UnsupportedError(
            "PNG files need the library resvg_py, which is not installed", hint="pip install 'inlay[pictures]', or take the SVG"
        ) from cause
    return bytes(library.svg_to_bytes(svg_string=svg, zoom=SCALE))
