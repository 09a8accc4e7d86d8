"""`inlay devices --measure` on this machine: real processes, kept figures, and what becomes of a damaged file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, INLAY

from inlay.hardware import probe
from inlay.runtime.cache import Cache
from inlay.runtime.machine import kept_figures, measure_figures

pytestmark = pytest.mark.alone


def devices(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, "INLAY_CACHE": str(cache), "COLUMNS": "120"}
    command = [*INLAY, "devices", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@dataclass
class Machine:
    cache: Path
    report: dict[str, Any]
    told: list[str]
    seconds: float


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    cache = tmp_path_factory.mktemp("cache")
    begun = time.monotonic()
    done = devices(cache, "--measure", "--json")
    assert done.returncode == 0, done.stderr
    return Machine(cache, json.loads(done.stdout), done.stderr.splitlines(), time.monotonic() - begun)


def test_each_step_is_told_and_all_take_less_than_90_seconds_for_each_kind(machine: Machine) -> None:
    steps = [line for line in machine.told if line.startswith("[")]
    count = len(steps)
    assert [line.split("]")[0] for line in steps] == [f"[{number}/{count}" for number in range(1, count + 1)]
    assert any("matrix products in float32" in line for line in steps) and any("messages" in line for line in steps)
    assert machine.seconds < 90 * len({item["kind"] for item in machine.report["figures"]["profiles"].values()})


def test_every_figure_is_measured_or_says_why_not(machine: Machine) -> None:
    figures = machine.report["figures"]
    assert set(figures["profiles"]) == set(machine.report["cluster"]["devices"]) and figures["damaged"] == []
    for profile in figures["profiles"].values():
        for name in ("float32", "float64", "bfloat16", "int8"):
            assert (name in profile["products"]) != (name in profile["absent"]), profile["absent"]
        assert {"float32", "float64"} <= set(profile["products"]) and set(profile["memory"]) == {"read", "write", "copy"}
        single, double = (profile["products"][name]["best"] for name in ("float32", "float64"))
        assert 1e8 < double < 1.3 * single < 1e14
        assert all(1e8 < found["low"] <= found["best"] < 1e13 for found in profile["memory"].values())
        assert profile["array"] >= 4 * profile["cache"] and profile["grade"] == "measured"
        assert re.match(r"20\d\d-\d\d-\d\dT", profile["taken"]) and {"numpy", "python", "inlay"} <= set(profile["versions"])


def test_messages_are_timed_within_a_device_and_between_two(machine: Machine) -> None:
    links = machine.report["figures"]["links"]
    relations = [link["relation"] for link in links]
    assert "same device" in relations and (
        len(os.sched_getaffinity(0)) == 1 or "same zone" in relations or "other zone" in relations
    )
    for link in links:
        assert link["small_bytes"] == 32 << 10 and link["large_bytes"] == 8 << 20 and link["grade"] == "measured"
        assert 1e-6 < link["small"]["best"] < link["large"]["median"] and 1e7 < link["bandwidth"] < 1e12
        through = link["latency"] + link["large_bytes"] / link["bandwidth"]
        assert through == pytest.approx(link["large"]["median"], rel=0.2)


def test_kept_figures_are_shown_with_date_and_grade_and_read_back_equal(machine: Machine) -> None:
    again = json.loads(devices(machine.cache, "--json").stdout)
    assert again["figures"] == machine.report["figures"]
    shown = devices(machine.cache)
    date = next(iter(machine.report["figures"]["profiles"].values()))["taken"][:10]
    assert shown.returncode == 0 and shown.stderr == "" and date in shown.stdout and "not measured yet" not in shown.stdout
    for row in ("float32 product", "int8 product", "memory read", "memory copy"):
        assert re.search(rf"│ {row} .*(measured|not installed)", shown.stdout), shown.stdout
    assert "messages through shared memory" in shown.stdout


def test_a_damaged_file_is_warned_of_and_only_that_is_measured_again(machine: Machine) -> None:
    files = sorted((machine.cache / "profiles" / "links").glob("*.json"))
    before = {path: path.read_bytes() for path in (machine.cache / "profiles").rglob("*.json")}
    files[0].write_text(files[0].read_text().replace('"bandwidth": ', '"bandwidth": -', 1))
    shown = devices(machine.cache)
    assert shown.returncode == 0 and shown.stderr.startswith(f"warning: measured figures in {str(files[0])!r}")
    told: list[str] = []
    found = measure_figures(probe(), cache=Cache(machine.cache), anew=False, progress=told.append)
    assert any(str(files[0]) in line and line.endswith("measuring it again") for line in told)
    assert [line for line in told if line.startswith("[")] == [next(line for line in told if line.startswith("[1/1] messages"))]
    assert found == kept_figures(probe(), cache=Cache(machine.cache)) and found.damaged == ()
    assert len(found.links) == len(machine.report["figures"]["links"])
    assert {path for path, data in before.items() if path.read_bytes() != data} == {files[0]}


def test_a_cluster_whose_cores_are_not_here_cannot_be_measured(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text('nodes: {local: {}}\ndevices: {"cpu:0": {node: local, cores: [4000]}}\n')
    done = devices(machine.cache, "--cluster", str(file), "--measure")
    assert done.returncode == 2 and "has core 4000" in done.stderr and "hint:" in done.stderr
    assert devices(machine.cache, "--cluster", str(file)).returncode == 0
