"""The shipped calibration predicts what was published, with bands that cover, and grades that tell what it has seen."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from inlay.cost.serving import Predictor
from inlay.cost.serving.shipped import measured_points, measured_points_text, shipped
from inlay.hardware.catalogue import read_catalogue
from inlay.models.facts import read_facts

CATALOGUE = read_catalogue()


def model(chip: str = "b200", chips: int = 4, **changed: object):
    predictor, facts, sheet = Predictor.shipped(), read_facts("gpt-oss-120b"), CATALOGUE.sheet(chip)
    engine, precision = predictor.engines(facts, sheet)[0]
    sizes = {"input_tokens": 7373.0, "output_tokens": 922.0, "chips": chips, "tensor": chips} | changed
    return predictor.step_model(facts, sheet, engine, precision, **sizes)  # type: ignore[arg-type]


def test_the_shipped_file_is_of_the_published_points() -> None:
    assert shipped().digest == hashlib.sha256(measured_points_text()).hexdigest()


def test_published_points_are_predicted_within_the_band_four_times_out_of_five() -> None:
    predictor = Predictor.shipped()
    points = [point for point in measured_points(CATALOGUE).points if point.group[1] == "gpt-oss-120b"][::5]
    inside, errors = [], []
    for point in points:
        wanted = point.wanted
        found = predictor.step_model(
            wanted.facts, wanted.sheet, wanted.engine, wanted.precision, input_tokens=wanted.load.input_tokens,
            output_tokens=wanted.load.output_tokens, chips=wanted.chips, tensor=wanted.tensor, expert=wanted.expert,
        ).decode(np.array([wanted.load.concurrency]))  # fmt: skip
        assert found.grade == "calibrated"
        inside.append(found.low[0] <= point.tpot <= found.high[0])
        errors.append(abs(found.seconds[0] / point.tpot - 1))
    assert np.median(errors) < 0.10
    assert np.mean(inside) > 0.75


def test_a_chip_with_points_is_calibrated_and_one_without_is_modelled_with_a_wider_band() -> None:
    shape = {"input_tokens": 922.0, "output_tokens": 922.0}
    seen, unseen = (model(chip, **shape).decode(np.array([8.0])) for chip in ("b200", "gb300"))
    assert (seen.grade, unseen.grade) == ("calibrated", "modelled")
    assert unseen.high[0] / unseen.low[0] > seen.high[0] / seen.low[0]


def test_a_load_far_from_the_shapes_that_were_measured_is_extrapolated_and_says_so() -> None:
    """B200 was measured with up to one prompt token for an output token of this model, H200 with eight."""
    assert model("b200", input_tokens=922.0).note == ""
    far = model("b200", input_tokens=7373.0)
    assert far.grade == "modelled"
    assert "asked are 8" in far.note
    assert model("h200", input_tokens=7373.0).grade == "calibrated"


def test_a_chip_is_not_given_a_precision_that_it_has_no_arithmetic_for() -> None:
    predictor, facts = Predictor.shipped(), read_facts("Llama-3.1-70B")
    assert "fp4" not in CATALOGUE.sheet("mi300x").peaks
    assert "fp4" not in {precision for _, precision in predictor.engines(facts, CATALOGUE.sheet("mi300x"))}
    assert "fp4" in {precision for _, precision in predictor.engines(facts, CATALOGUE.sheet("b200"))}


def test_wider_steps_and_prompts_beside_take_longer_and_a_cached_prompt_less() -> None:
    found = model()
    batch = np.array([1.0, 8.0, 64.0])
    bare, wide, beside = (found.decode(batch, width=w, prefill_share=s).seconds for w, s in ((1, 0.0), (5, 0.0), (1, 8.0)))
    assert (wide > bare).all() and (beside > bare).all() and (np.diff(bare) > 0).all()
    assert found.prompt(8192.0, cached=7000.0).seconds < found.prompt(8192.0).seconds
    assert found.prompt(8192.0).grade == "modelled"


def test_what_does_not_fit_the_memory_is_told() -> None:
    """63 GB of weights on one chip of 180 GB leave room for about 290 sequences of 8,295 tokens, and on one of 80 for few."""
    fits = model("b200", 1).fits(np.array([1.0, 200.0, 400.0]))
    assert fits.tolist() == [True, True, False]
    assert not model("a100", 1).fits(np.array([64.0]))[0]
    with pytest.raises(Exception, match="tensor parallel"):
        model("b200", 4, tensor=3)
