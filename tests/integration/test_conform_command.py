"""`inlay conform` as the maker of a chip uses it: on a backend that comes from outside, whole and with a wrong operator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, INLAY, run

from inlay.api.conformance import read_report

EXAMPLE = Path(__file__).parents[2] / "examples" / "new-chip"
RIGHT = "result = super().run_node(n)\n"
WRONG = RIGHT + '        result = result * 1.01 if "aten.sub" in str(n.target) else result\n'
CHOSEN = ["--only", "sub float32", "--only", "aten.add"]
TRIED = ("capability", "numerics", "state")


@pytest.fixture(scope="module", autouse=True)
def samples_can_be_made() -> None:
    pytest.importorskip("expecttest", reason="PyTorch's samples need expecttest: pip install 'inlay[conform]'")


def installed(source: Path, target: Path) -> dict[str, str]:
    """The environment of processes that see the package, which is installed beside, not into, what is here."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])}


def conform(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    command = [*INLAY, "conform", "newchip", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.mark.thorough
def test_a_chip_from_outside_passes_and_its_report_is_signed(tmp_path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "source")
    environment = installed(tmp_path / "source", tmp_path / "site")
    report = tmp_path / "newchip.json"
    sections = [part for name in TRIED for part in ("--section", name)]
    code, found, said = conform(environment, *CHOSEN, *sections, "-o", str(report))
    assert code == 0, said
    outcomes = [(section, *case[:2]) for section, cases in found["sections"].items() for case in cases]
    assert found["verdict"] == "partial" and {outcome for _, _, outcome in outcomes} == {"passed"}, outcomes
    assert {section for section, _, _ in outcomes} == set(TRIED)
    assert read_report(report).digest == found["digest"]


def test_a_wrong_operator_of_that_chip_is_caught_by_name(tmp_path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "source")
    file = tmp_path / "source" / "src" / "inlay_newchip" / "execute.py"
    text = file.read_text()
    assert text.count(RIGHT) == 1
    file.write_text(text.replace(RIGHT, WRONG))
    code, found, said = conform(
        installed(tmp_path / "source", tmp_path / "site"),
        "--section",
        "numerics",
        "--only",
        "sub float32",
        "--only",
        "aten.add",
    )
    assert code == 7, said
    outcomes = {case[0]: (case[1], case[4]) for case in found["sections"]["numerics"]}
    wrong = {name for name, (outcome, _) in outcomes.items() if outcome == "failed"}
    assert "sub float32" in wrong and not any("add" in name for name in wrong)
    assert "relative error" in outcomes["sub float32"][1] and found["verdict"] == "not conformant"


def test_bad_input_is_told_before_anything_is_tried() -> None:
    for arguments, message in (
        (["nobody"], "'nobody' is not known"),
        (["null"], "computes nothing"),
        (["reference", "--section", "speed"], "section is 'speed', expected one of: capability"),
        (["reference", "--seconds", "0"], "--seconds is 0"),
        (["reference", "-o", "nowhere/at/all.json"], "expected a file in a folder that exists"),
    ):
        done = run("conform", *arguments)
        assert done.returncode == 2 and message in done.stderr and "hint:" in done.stderr, done.stderr
        assert not done.stdout
