"""The parts of the conformance kit that need no device: jobs, comparing, filters, blame, and a planted wrong result."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay.graph import Node, Program, Tensor
from inlay.runtime.conformance.comparing import fault_of
from inlay.runtime.conformance.facts import without_paths
from inlay.runtime.conformance.filters import FILTERED, filtered
from inlay.runtime.conformance.jobs import run_jobs, serve
from inlay.runtime.conformance.numerics import Numbers, Verdict, _compared, _Set, cases_of
from inlay.runtime.conformance.run import capability_cases
from inlay.runtime.conformance.tally import support_of
from inlay.runtime.conformance.units import Group, Unit, load_values, operators_of, piece_of_units, save_values
from inlay.runtime.conformance.zoo import call_names, operator_counts, zoo_operators

PATH = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}


def stubborn(config: dict[str, Any]) -> int:
    """A program of jobs: some end the process, one hangs, one raises."""

    def work(job: dict[str, Any]) -> dict[str, Any]:
        match job["do"]:
            case "die":
                os._exit(9)
            case "hang":
                time.sleep(60)
            case "raise":
                raise ValueError("planted")
        return {"squared": job["number"] ** 2}

    return serve(config, work)


def test_a_job_that_ends_its_process_or_hangs_costs_itself_only() -> None:
    wanted = {3: "die", 4: "die", 7: "hang", 8: "raise"}
    jobs = [{"name": f"job {number}", "number": number, "do": wanted.get(number, "")} for number in range(12)]
    program = "test_conformance_kit:stubborn"
    found = run_jobs(program, jobs, {}, environment=PATH, processes=2, seconds=2.0)
    assert len(found) == 12
    for number in range(12):
        result = found[f"job {number}"]
        match wanted.get(number):
            case "die":
                assert "ended with status 9" in result["lost"]
            case "hang":
                assert "not done after 2 s" in result["lost"]
            case "raise":
                assert result["error"]["message"] == "ValueError: planted"
            case _:
                assert result == {"squared": number**2}


def test_jobs_not_reached_before_the_deadline_have_no_result() -> None:
    jobs = [{"name": "slow", "number": 0, "do": "hang"}]
    program = "test_conformance_kit:stubborn"
    found = run_jobs(program, jobs, {}, environment=PATH, deadline=time.monotonic() + 0.5)
    assert found == {}


F32 = np.float32


@pytest.mark.parametrize(
    ("found", "truth", "fault"),
    [
        (np.ones(3, F32), np.ones(3, F32), ""),
        (np.array([1, 2.00001], F32), np.array([1, 2], F32), ""),
        (np.array([1, 2.01], F32), np.array([1, 2], F32), "relative error"),
        (np.ones(3, F32), np.ones((3, 1), F32), r"float32 \[3\], expected float32 \[3, 1\]"),
        (np.ones(3, np.float64), np.ones(3, F32), "float64"),
        (np.array([1, 2]), np.array([1, 3]), "1 of 2 whole numbers"),
        (np.array([True]), np.array([False]), "truth values"),
        (np.array([np.nan, 1], F32), np.array([0, 1], F32), "no number"),
        (np.array([np.nan, 1], F32), np.array([np.nan, 1], F32), ""),
        (np.array([np.inf, 1], F32), np.array([-np.inf, 1], F32), "infinite"),
        (np.array([np.inf, 1], F32), np.array([np.inf, 1], F32), ""),
        (np.array([1, 1], F32), np.array([np.inf, 1], F32), "infinite"),
        (np.array([1, np.inf], F32), np.array([1, 1], F32), "infinite"),
        (np.array([1e-30], F32), np.array([0], F32), "relative error"),
        (np.array([1 + 2e-3], np.float16), np.array([1], np.float16), ""),
        (np.array([1 + 2e-2], np.float16), np.array([1], np.float16), "relative error"),
    ],
)
def test_faults_are_told_by_type_shape_and_value(found: Any, truth: Any, fault: str) -> None:
    said = fault_of(found, truth)[1]
    assert bool(said) == bool(fault) and re.search(fault, said)


def test_filters_name_operators_of_torch_once_each_with_a_reason() -> None:
    names = [name for items in FILTERED.values() for name in items]
    assert len(set(names)) == len(names)
    assert all(reason.strip() for reason in FILTERED)
    assert filtered("multinomial") and filtered("nn.functional.dropout2d") and filtered("sparse.mm")
    assert not filtered("add") and not filtered("nn.Linear") and not filtered("emptyish")


def test_the_operators_of_the_models_are_counted_and_nearly_all_have_a_call() -> None:
    counts = operator_counts()
    assert len(counts) > 80 and all(count > 0 for count in counts.values())
    assert {"aten.linear.default", "aten.softmax.int", "aten.scaled_dot_product_attention.default"} <= set(counts)
    without = set(counts) - set(call_names())
    assert all(not name.startswith("aten.") or name.startswith("aten.sym_") for name in without), without
    assert all(item["models"] >= 1 for item in zoo_operators().values())


def program() -> Program:
    """y = x * w, z = y + x, s = softmax(v)."""
    f = Tensor(dtype="float32", shape=(2, 3))

    def node(name: str, operator: str, *inputs: str) -> Node:
        return Node(name=name, operator=operator, inputs=inputs, outputs=(f,), arguments="[[],[]]")

    return Program(
        name="p",
        inputs={"x": f, "v": f},
        weights={"w.weight": f},
        nodes=(
            node("y", "aten.mul.Tensor", "x", "w"),
            node("s", "aten.softmax.int", "v"),
            node("z", "aten.add.Tensor", "y", "x"),
        ),
        outputs=("z", "s"),
        digest="",
        weight_nodes={"w": "w.weight"},
    )


ADD = Unit(name="add #0", case="add float32", outputs=("z",))
SOFTMAX = Unit(name="softmax #0", case="softmax float32", outputs=("s",))


def test_a_unit_is_a_piece_with_its_own_ports_nodes_and_weights() -> None:
    assert operators_of(program(), ADD) == ("aten.mul.Tensor", "aten.add.Tensor")
    one, both = piece_of_units(program(), [SOFTMAX]), piece_of_units(program(), [ADD, SOFTMAX])
    assert (one.inputs, one.nodes, one.outputs, one.weights) == (("v",), ("s",), ("s",), ())
    assert (both.inputs, both.nodes, both.outputs, both.weights) == (("x", "v"), ("y", "s", "z"), ("s", "z"), ("w.weight",))
    assert one.digest != both.digest


def test_values_of_every_type_come_back_from_a_file(tmp_path) -> None:
    import ml_dtypes

    arrays = {"in x": np.ones((2, 3), F32), "out b": np.array([True]), "out h": np.array([1.5, -2.0], ml_dtypes.bfloat16)}
    save_values(tmp_path / "v.npz", arrays)
    found = load_values(tmp_path / "v.npz")
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }
    assert load_values(tmp_path / "v.npz", ["out b"]).keys() == {"out b"}


class FakeWorld:
    """Only the folder of results, which is all that comparing looks at."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch


def test_a_planted_wrong_result_is_tried_alone_and_then_fails_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("inlay.runtime.conformance.numerics._operators", lambda group, unit: operators_of(program(), unit))
    truth = {"out z": np.ones((2, 3), F32), "out s": np.full((2, 3), 1 / 3, F32)}
    save_values(tmp_path / "truth.npz", truth)
    group = Group(name="g", folder="", values=str(tmp_path / "truth.npz"), units=(ADD, SOFTMAX))
    numbers, together = Numbers(), _Set(group, (ADD, SOFTMAX))
    wrong = {**truth, "out s": truth["out s"][:, ::-1] * F32(1.1)}
    save_values(tmp_path / f"{together.name}.npz", wrong)
    again = _compared(FakeWorld(tmp_path), together, numbers)  # type: ignore[arg-type]
    assert [item.units for item in again] == [(SOFTMAX,)] and numbers.verdicts["add #0"].outcome == "passed"
    save_values(tmp_path / f"{again[0].name}.npz", wrong)
    assert _compared(FakeWorld(tmp_path), again[0], numbers) == []  # type: ignore[arg-type]
    assert numbers.verdicts["softmax #0"].outcome == "failed"
    assert {case.name: case.outcome for case in cases_of(numbers)} == {"add float32": "passed", "softmax float32": "failed"}


def verdict(case: str, outcome: str, *operators: str, reason: str = "", promised: bool = False) -> Verdict:
    return Verdict(case, outcome, reason, None, operators, promised)


def test_a_failed_sample_is_blamed_on_its_only_operator_or_on_those_that_passed_nowhere() -> None:
    found = support_of(
        [
            verdict("a", "passed", "aten.mul.Tensor", "aten.add.Tensor"),
            verdict("b", "failed", "aten.mul.Tensor", reason="relative error 1"),
            verdict("c", "failed", "aten.add.Tensor", "aten.sort.default", reason="relative error 2"),
            verdict("d", "unsupported", "aten.fft_fft.default", "aten.add.Tensor"),
        ],
        refused={"aten.fft_fft.default": "no complex numbers", "aten.add.Tensor": "not in int8"},
        programs={"aten.linear.default": True, "aten.gru.input": False},
        operators=["aten.gru.input", "aten.lstm.input"],
    )
    assert {name: item.outcome for name, item in found.items()} == {
        "aten.add.Tensor": "passed",
        "aten.fft_fft.default": "unsupported",
        "aten.gru.input": "untested",
        "aten.linear.default": "passed",
        "aten.lstm.input": "untested",
        "aten.mul.Tensor": "failed",
        "aten.sort.default": "failed",
    }
    assert found["aten.add.Tensor"].reason == "not always: not in int8"


def test_samples_of_one_case_are_joined_and_the_worst_outcome_counts() -> None:
    numbers = Numbers()
    for number, (outcome, error) in enumerate([("passed", 1e-7), ("passed", 3e-6), ("unsupported", None)]):
        numbers.verdicts[f"s{number}"] = Verdict("softmax float32", outcome, "no half" if error is None else "", error)
    (case,) = cases_of(numbers)
    assert (case.outcome, case.samples, case.error, case.reason) == ("passed", 2, 3e-6, "another sample: no half")
    numbers.verdicts["s3"] = Verdict("softmax float32", "failed", "relative error 1")
    assert cases_of(numbers)[0].outcome == "failed"


def test_a_promise_that_lowering_breaks_is_a_failed_capability() -> None:
    numbers = Numbers(answers=5)
    numbers.verdicts["s0"] = verdict("sort int64", "failed", "aten.sort.default", reason="lower: no rule", promised=True)
    numbers.verdicts["s1"] = verdict("add float32", "passed", "aten.add.Tensor")
    failed = [case for case in capability_cases(numbers, {}) if case.outcome == "failed"]
    assert [case.name for case in failed] == ["promised and refused: sort int64"]
    numbers.bad_answers.append("aten.sort.default is refused without a reason")
    assert sum(case.outcome == "failed" for case in capability_cases(numbers, {})) == 2


def test_reasons_in_a_report_hold_no_folder_of_the_machine() -> None:
    assert without_paths("file '/var/lib/it/graph.pt2' at 1/2 of a/b") == "file 'graph.pt2' at 1/2 of a/b"
