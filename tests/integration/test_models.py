"""Three models of the table (`benchmarks/models.py`): captured, cut, every block lowered by each backend, compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # last: its own `serving` is another
import model_zoo
from model_row import SPLIT, row

from inlay.backends import backend

TWO = ("openvino", "onnxruntime")
EVERY = (*TWO, "contrary", "reference")


@pytest.mark.parametrize("name", ["mistral", "t5_small", "unet"])
def test_a_model_of_the_table_is_captured_cut_and_right_on_every_backend(name: str) -> None:
    for item in TWO:
        if not backend(item).available().available:
            pytest.skip(backend(item).available().reason)
    found = row(name, getattr(model_zoo, name), backends=EVERY)
    assert found["captured"], found.get("reason")
    assert found["blocks"] > 1
    assert set(found["backends"]) == {*EVERY, SPLIT}
    for label, outcome in found["backends"].items():
        assert outcome["lowered"] and outcome.get("ran"), f"{label}: {outcome.get('reason')}"
        assert outcome["relative_error"] < 1e-4 and outcome["carried_error"] < 1e-4, label


def test_what_a_backend_cannot_lower_is_told_with_the_operator() -> None:
    if not backend("openvino").available().available:
        pytest.skip(backend("openvino").available().reason)
    found = row("fnet", model_zoo.fnet, backends=["openvino"])
    assert found["captured"]
    outcome = found["backends"]["openvino"]
    assert not outcome["lowered"] and "aten." in outcome["reason"]
