"""A report shows every vertex with its grade, alone, in a page, a picture and a text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from inlay.drawing import Curve, Point, plot
from inlay.errors import UnsupportedError
from inlay.planner.report import Chart, Report, Table, Trace, Vertex, page, picture, text
from inlay.planner.report.picture import rasterised


def report() -> Report:
    vertices = tuple(
        Vertex(x=x, y=y, low=0.8 * y, high=1.25 * y, configuration=f"{n} x b200, tp {n}, vllm <0.13>", grade="calibrated")
        for n, x, y in ((1, 90.0, 2000.0), (4, 210.0, 900.0))
    )
    seen = (Vertex(x=100.0, y=1800.0, configuration="b200 tp1, as measured", grade="measured"),)
    forced = (Vertex(x=150.0, y=700.0, configuration="b200 + corsair", grade="modelled"),)
    traces = (
        Trace(name="b200 alone", kind="frontier", vertices=vertices),
        Trace(name="InferenceMAX", kind="measured", vertices=seen),
        Trace(name="with corsair", kind="forced", vertices=forced),
    )
    return Report(
        title="gpt-oss-120b & friends",
        asked=(("workload", "8,192 in, 1,024 out"), ("budget", "TTFT 1000 ms")),
        lead=("Serve it on 4 x b200: 900 tokens/s a chip at 210 tokens/s per user (modelled).",),
        reasons=("It is the cheapest that keeps the budget.",),
        charts=(Chart(name="Throughput per chip", up="output tokens/s per chip", traces=traces),),
        tables=(Table(title="Cost", head=("part", "$/h"), rows=(("hardware", "1.45"), ("power", "0.15"))),),
        doubts=("corsair: 0.9 kW all-in is an assumption",),
    )


def test_the_page_stands_alone_and_shows_every_vertex_with_its_grade() -> None:
    shown = page(report())
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|src=|href=|@import|url\(", shown)
    assert shown.count("calibrated") >= 4
    assert "4 x b200, tp 4, vllm &lt;0.13&gt;" in shown
    assert "gpt-oss-120b &amp; friends" in shown
    svg = shown[shown.index("<svg") : shown.index("</svg>") + 6]
    titles = [item.text or "" for item in ElementTree.fromstring(svg).iter("title")]
    assert len(titles) == 4
    assert sum("modelled" in title or "measured" in title or "calibrated" in title for title in titles) == 4


def test_measured_points_have_another_mark_and_forced_plans_are_dashed() -> None:
    root = ElementTree.fromstring(picture(report(), report().charts[0]))
    space = "{http://www.w3.org/2000/svg}"
    marks = [item for item in root.iter(f"{space}polygon") if item.get("fill") == "transparent"]
    told = [mark.findtext(f"{space}title") or "" for mark in marks]
    assert [title for title in told if "as measured" in title]
    assert not [title for title in told if "tp 4" in title]
    dashed = [line for line in root.iter(f"{space}polyline") if line.get("stroke-dasharray")]
    assert len(dashed) == 1


def test_a_band_spans_the_ends_of_its_points() -> None:
    points = (Point(0.0, 50.0, "", "", 25.0, 100.0), Point(100.0, 50.0, "", "", 25.0, 100.0))
    svg = ElementTree.fromstring(plot([Curve("one", points)], across="x", up="y"))
    (band,) = [item for item in svg.iter("polygon") if item.get("fill-opacity")]
    heights = sorted({float(corner.split(",")[1]) for corner in (band.get("points") or "").split()})
    (axis,) = {float(item.get("cy") or 0) for item in svg.iter("circle")}
    top, bottom = heights
    assert (axis - top) == pytest.approx(2 * (bottom - axis), rel=0.02)


def test_a_logarithmic_axis_gives_equal_ratios_equal_room_and_leaves_out_what_is_far_below() -> None:
    points = tuple(Point(x, y, "", "") for x, y in ((1.0, 1000.0), (2.0, 100.0), (3.0, 10.0), (4.0, 0.001)))
    svg = ElementTree.fromstring(plot([Curve("one", points)], across="x", up="y", is_logarithmic=True))
    heights = [float(item.get("cy") or 0) for item in svg.iter("circle")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    assert heights[3] <= 500 - 58


def test_the_text_has_question_answer_table_and_doubts() -> None:
    shown = text(report(), width=80)
    for part in ("8,192 in, 1,024 out", "Serve it on 4 x b200", "hardware", "1.45", "0.9 kW all-in is an assumption"):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_picture_without_its_library_says_how_to_get_it() -> None:
    svg = picture(report(), report().charts[0])
    try:
        assert rasterised(svg).startswith(b"\x89PNG")
    except UnsupportedError as error:
        assert "inlay[pictures]" in (error.hint or "")
