"""`inlay plan` from the command line: an answer in text, JSON and files, and errors that name the fault and a way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inlay.cli.main import app
from inlay.errors import InlayError

CLUSTER = str(Path(__file__).parents[3] / "examples" / "clusters" / "b200-corsair.yaml")
LOAD = ["--workload", "isl=8192,osl=1024"]
QUICK = ["plan", "gpt-oss-120b", *LOAD, "--no-sensitivity"]
DRAFTS = ["--draft", "1.6b", "--acceptance", "0.8", "--own-draft", "0.8b/1", "--own-acceptance", "0.75"]


def test_the_example_is_answered_with_baselines_shifts_break_even_and_files(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, [*QUICK, "--cluster", CLUSTER, "--floor", "300", *DRAFTS, "-o", str(tmp_path)])
    assert found.exit_code == 0, found.output
    for part in ("Use ", "b200 without drafts", "b200, own drafts", "Shifts per kW", "Break-even", "below $", "modelled"):
        assert part in found.stdout
    names = {path.name for path in tmp_path.iterdir()}
    assert {"plan.json", "report.html", "frontier-chip.svg", "frontier-kilowatt.svg", "frontier-dollar.svg"} <= names
    plan = json.loads((tmp_path / "plan.json").read_bytes())
    assert plan["answer"]["searched"] > 10_000
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_json_is_json_and_nothing_else() -> None:
    found = CliRunner().invoke(app, [*QUICK, "--chips", "h200:8", "--json"])
    told = json.loads(found.stdout)
    recommended = told["answer"]["recommended"]
    assert recommended["grade"] == "calibrated"
    assert recommended["dollars_an_hour"] == pytest.approx(8 * 1.59)


def test_measured_points_of_the_same_shape_stand_on_the_chart() -> None:
    found = CliRunner().invoke(app, [*QUICK, "--chips", "h200:8", "--json"])
    traces = json.loads(found.stdout)["report"]["charts"][0]["traces"]
    (measured,) = [trace for trace in traces if trace["kind"] == "measured"]
    anchors = {(round(vertex["x"]), round(vertex["y"])) for vertex in measured["vertices"]}
    assert {(136, 514), (23, 1444)} <= anchors
    assert {vertex["grade"] for vertex in measured["vertices"]} == {"measured"}


def test_a_stated_price_makes_the_dollar_axis_whole() -> None:
    found = CliRunner().invoke(
        app, [*QUICK, "--cluster", CLUSTER, *DRAFTS, "--price", "corsair=9000", "--axis", "dollar", "--json"]
    )
    told = json.loads(found.stdout)
    assert told["answer"]["frontiers"]["dollar"]["drafts on corsair"]
    assert not [table for table in told["report"]["tables"] if table["title"].startswith("Break-even")]


def test_the_sensitivity_says_where_the_choice_flips() -> None:
    asked = ["plan", "gpt-oss-120b", *LOAD, "--chips", "b200:1,corsair:2", "--floor", "300", *DRAFTS]
    found = CliRunner().invoke(app, asked)
    assert "Sensitivity (modelled)" in found.stdout
    assert "acceptance apart" in found.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--chips", "b20:8"], "'b20' is not in the catalogue"),
        (["--chips", "b200:8", "--without", "nvidia"], "--without nvidia contradicts the chips b200"),
        ([], "neither --cluster nor --chips"),
        (["--chips", "b200:0"], "'b200:0'"),
        (["--chips", "b200:8", "--price", "b200"], "--price is 'b200'"),
        (["--chips", "b200:8", "--price", "b200=x"], "'x', expected a number above 0"),
        (["--chips", "b200:8", "--convention", "spot"], "'spot'"),
        (["--chips", "b200:8", "--axis", "watt"], "axis is 'watt'"),
        (["--chips", "b200:8", "--draft", "1.6b", "--acceptance", "1.2"], "acceptance is 1.2"),
    ],
)
def test_each_fault_is_named_with_a_hint(more: list[str], message: str) -> None:
    found = CliRunner().invoke(app, [*QUICK, *more])
    assert isinstance(found.exception, InlayError)
    assert message in found.exception.message
    assert found.exception.hint
