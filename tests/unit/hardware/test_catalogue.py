"""The catalogue of chips: complete in its sources, found by any spelling, and open to a user's own file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inlay.cli.main import app
from inlay.errors import ClusterError
from inlay.hardware.catalogue import CONFIDENCES, read_catalogue
from inlay.specs.profile import GRADES

MINE = """
compiled: 2026-11
sources:
  sheet: {text: preliminary data sheet, date: 2026-10}
chips:
  my-npu:
    name: My NPU
    vendor: Me
    kind: asic
    aliases: [npu]
    memories:
    - name: sram
      size: {value: 96 MB, source: sheet, confidence: high}
      bandwidth: {value: 12 TB/s, source: sheet, confidence: low}
    - {name: ddr, size: 64 GB, bandwidth: {value: [200 GB/s, 300 GB/s], source: sheet, confidence: medium}}
    peaks: {int8: 100 TOPS}
    link: {outside: {value: 200 Gb/s, source: sheet, confidence: high}}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE.replace("2026-11", "'2026-11'").replace("2026-10", "'2026-10'"))
    return file


def test_every_figure_of_the_shipped_chips_has_source_date_confidence_and_grade() -> None:
    sheets = read_catalogue().sheets
    figures = [(sheet.name, path, figure) for sheet in sheets for path, figure in sheet.figures().items()]
    assert len(sheets) == 39 and len(figures) == 370
    for name, path, figure in figures:
        assert figure.source and re.fullmatch(r"20\d\d(-\d\d){0,2}", figure.date), (name, path)
        assert figure.confidence in CONFIDENCES and figure.grade in GRADES, (name, path)
        assert 0 < figure.low <= figure.value <= figure.high, (name, path)
        assert figure.grade != "vendor" or "estimate made" not in figure.source


def test_memories_come_fastest_first_and_caches_hold_nothing() -> None:
    for sheet in read_catalogue().sheets:
        known = [memory.bandwidth.value for memory in sheet.tiers if memory.bandwidth]
        assert known == sorted(known, reverse=True), sheet.name
    corsair, epyc = read_catalogue().sheet("corsair"), read_catalogue().sheet("epyc")
    assert [(memory.size.value, memory.bandwidth and memory.bandwidth.value) for memory in corsair.tiers] == [
        (2.048e9, 150e12),
        (256e9, 400e9),
    ]
    assert [memory.name for memory in epyc.memories] == ["sram", "DDR5-6000/6400 12ch"]
    assert [memory.name for memory in epyc.tiers] == ["DDR5-6000/6400 12ch"]
    assert epyc.chip().memories[1].size == 768_000_000_000


def test_links_are_of_one_direction_and_networks_are_read_in_bits() -> None:
    h100, mi300x = read_catalogue().sheet("h100").link, read_catalogue().sheet("mi300x").link
    assert h100.inside is not None and h100.inside.value == 450e9
    assert h100.outside is not None and h100.outside.value == 50e9
    assert mi300x.pair is not None and mi300x.inside is not None and mi300x.pair.value == mi300x.inside.value / 7


@pytest.mark.parametrize("name", ["b200", "B200", "b200-sxm", "b200_sxm", "B200 SXM"])
def test_a_chip_is_found_by_any_spelling(name: str) -> None:
    assert read_catalogue().sheet(name).name == "b200_sxm"


@pytest.mark.parametrize(("typo", "meant"), [("corsiar", "dmatrix_corsair"), ("h10O", "h100_sxm"), ("gaudy3", "gaudi3_oam")])
def test_a_typo_suggests_the_right_chip(typo: str, meant: str) -> None:
    with pytest.raises(ClusterError, match=typo) as caught:
        read_catalogue().sheet(typo)
    assert caught.value.hint is not None and meant in caught.value.hint


def test_a_chip_without_a_public_price_has_a_free_one() -> None:
    free = {sheet.name for sheet in read_catalogue().sheets if not sheet.has_price}
    assert {"dmatrix_corsair", "groq_lpu1", "groq3_lpu", "sambanova_sn40l", "furiosa_rngd", "trainium3", "tpu_v7x"} <= free
    assert not {"b200_sxm", "gaudi3_oam", "mi300x"} & free


def test_a_peak_falls_back_to_the_next_wider_format() -> None:
    h100, corsair = read_catalogue().sheet("h100"), read_catalogue().sheet("corsair")
    assert (h100.peak("fp4"), h100.peak("bf16")) == (h100.peaks["fp8"], h100.peaks["bf16"])
    assert corsair.peak("fp4") == corsair.peaks["mxint4"] and corsair.peak("bf16") is None


def test_a_user_adds_a_chip_and_bare_values_are_assumptions(mine: Path) -> None:
    found = read_catalogue(mine)
    sheet = found.sheet("my_npu")
    assert len(found.sheets) == 40 and found.sheet("npu") is sheet
    assert sheet.assumptions() == ("sram.bandwidth", "ddr.size", "peaks.int8")
    wide = sheet.memories[1].bandwidth
    assert wide is not None and (wide.low, wide.value, wide.high) == (200e9, 250e9, 300e9)
    assert (wide.source, wide.date, wide.grade) == ("preliminary data sheet", "2026-10", "vendor")


def test_a_users_chip_takes_the_place_of_the_shipped_one(mine: Path) -> None:
    mine.write_text(mine.read_text().replace("my-npu:", "mi300x:"))
    found = read_catalogue(mine)
    assert len(found.sheets) == 39 and found.sheet("mi300x").vendor == "Me"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("vendor: Me", "vendors: Me", r"unknown key 'vendors' in chips.my-npu, expected one of .*'vendor'"),
        ("64 GB", "64 GBs", r"memories\[1\].size is '64 GBs', expected a number with one of"),
        ("[200 GB/s, 300 GB/s]", "[300 GB/s, 200 GB/s]", "expected a range from low to high"),
        ("source: sheet, confidence: low", "source: shet, confidence: low", r"source is 'shet', expected one of \['sheet'\]"),
        ("confidence: medium", "confidence: so-so", "so-so"),
        ("aliases: [npu]", "aliases: [b200]", "'b200' names both chip 'b200_sxm' and chip 'my-npu'"),
        ("int8: 100 TOPS", "int8: 0", r"peaks.int8 is 0, expected more than zero"),
    ],
)
def test_a_fault_in_a_users_file_is_named_with_what_was_expected(mine: Path, old: str, new: str, text: str) -> None:
    mine.write_text(mine.read_text().replace(old, new))
    with pytest.raises(ClusterError, match=text) as caught:
        read_catalogue(mine)
    assert caught.value.hint


def test_the_command_lists_shows_and_prints_json(mine: Path) -> None:
    run = CliRunner(env={"COLUMNS": "250"})
    listed = run.invoke(app, ["chips", "--file", str(mine)])
    assert listed.exit_code == 0 and "my-npu" in listed.stdout and "h100_sxm" in listed.stdout
    shown = run.invoke(app, ["chips", "corsair"])
    assert "assumption" in shown.stdout and "break-even" in shown.stdout and "The Register" in shown.stdout
    read = json.loads(run.invoke(app, ["chips", "b200", "--json"]).stdout)
    assert read["peaks"]["fp8"]["value"] == 4.5e15 and read["has_price"]
    assert len(json.loads(run.invoke(app, ["chips", "--json"]).stdout)) == 39
