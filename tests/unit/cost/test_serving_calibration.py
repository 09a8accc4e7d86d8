"""The calibrated roofline: what a fit recovers, what a prior holds, what is read of a file of points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inlay.cost.serving import IDEAL, Configuration, Engine, Load, calibrate, decode_terms, read_points, scaled_to
from inlay.cost.serving.fitting import fit
from inlay.cost.serving.shipped import measured_points
from inlay.cost.serving.terms import LEAST, MOST, OVERHEADS
from inlay.errors import InputError
from inlay.hardware.catalogue import read_catalogue
from inlay.models.facts import read_facts

TRUE = np.array([2e-3, 20e-6, 10e-6, 1.2, 1.5, 3.0, 1.5, 1.0, 5e-6, 2.0, 8e-6])


def configuration(chip: str = "h100", *, chips: int = 1, concurrency: float = 16, tokens: float = 1024) -> Configuration:
    return Configuration(
        facts=read_facts("gpt-oss-120b"),
        sheet=read_catalogue().sheet(chip),
        engine=Engine("vllm", "1.0", "2026"),
        precision="native",
        load=Load(tokens, 1024, concurrency),
        chips=chips,
        tensor=chips,
    )


def sweep(chip: str = "h100") -> list[Configuration]:
    return [
        configuration(chip, chips=chips, concurrency=users, tokens=tokens)
        for chips in (1, 2, 4, 8)
        for users in (4, 16, 64, 256)
        for tokens in (1024, 8192)
    ]


def test_a_fit_recovers_the_times_of_known_coefficients_and_shrugs_off_a_wild_point() -> None:
    terms = np.array([decode_terms(wanted) for wanted in sweep()])
    seconds = terms @ TRUE
    wild = seconds.copy()
    wild[3] *= 20
    found = fit(terms, wild, prior=IDEAL, least=LEAST, most=MOST, strength=1e-3)
    errors = np.abs(np.delete(terms @ found / seconds, 3) - 1)
    assert np.median(errors) < 0.02 and errors.max() < 0.1
    assert (found >= LEAST).all() and (found <= MOST).all()


def test_a_strong_prior_is_kept_and_points_outweigh_a_weak_one() -> None:
    terms = np.array([decode_terms(wanted) for wanted in sweep()])
    held = fit(terms, 2 * terms @ TRUE, prior=TRUE, least=LEAST, most=MOST, strength=1e9)
    assert held == pytest.approx(TRUE, rel=1e-3)
    moved = fit(terms, 2 * terms @ TRUE, prior=TRUE, least=LEAST, most=MOST, strength=1e-3)
    assert np.median(terms @ moved / (2 * terms @ TRUE)) == pytest.approx(1.0, abs=0.05)


def test_two_points_give_a_new_chip_its_two_factors() -> None:
    wanted = sweep("mi300x")
    terms = np.array([decode_terms(item) for item in wanted])
    real = TRUE * np.where(OVERHEADS, 1.6, 0.8 * 1.5)
    ends = [0, len(wanted) - 1]
    scaled = scaled_to(TRUE, terms[ends], terms[ends] @ real)
    assert np.abs(terms @ scaled / (terms @ real) - 1).max() < 0.08
    assert np.abs(terms @ TRUE / (terms @ real) - 1).max() > 0.15


def test_a_chip_with_points_is_calibrated_and_one_without_is_modelled_by_its_neighbours() -> None:
    wanted = sweep()
    terms = np.array([decode_terms(item) for item in wanted])
    found = calibrate(wanted, terms, terms @ TRUE)
    assert found.grade(configuration("h100")) == "calibrated" and len(found.node(configuration("h100"))) == 7
    assert found.grade(configuration("h200")) == "modelled" and found.node(configuration("h200"))[-1] == "hopper"
    assert len(found.node(configuration("mi300x"))) == 4


def test_more_chips_share_weights_and_talk_and_more_users_hit_more_experts() -> None:
    one, eight = (decode_terms(configuration(chips=chips)) for chips in (1, 8))
    assert one[3] == pytest.approx(8 * eight[3]) and one[9] == 0 < eight[9]
    few, many = (decode_terms(configuration(concurrency=users))[3] for users in (1, 64))
    assert 5 < many / few < 30


def test_a_file_of_points_is_read_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text(
        "source,model,hw,n_chips,precision,isl,osl,concurrency,tok_s_per_user,framework,tp,disagg,spec,notes\n"
        "InferenceMAX run 1,gpt-oss-120b,h100,4,fp4,8192,1024,64,50,vllm,4,False,none,\n"
        "mine,Llama-3.1-8B,h100,1,bf16,1024,1024,8,100,trt 1.0,1,False,none,\n"
        "mine,Llama-3.1-8B,h100,1,bf16,1024,1024,8,100,trt 1.0,1,True,none,\n"
        "mine,Llama-3.1-8B,h10o,1,bf16,1024,1024,8,100,trt 1.0,1,False,none,\n"
    )
    found = read_points(file, read_catalogue())
    first, second = found.points
    assert (first.tpot, first.wanted.load.input_tokens, first.shape) == (0.02, 0.9 * 8192, (8192, 1024))
    assert (second.wanted.load.input_tokens, second.wanted.engine.name, second.wanted.engine.version) == (1024, "trtllm", "1.0")
    assert sorted(found.left_out.values()) == [1, 1] and "disaggregated" in found.left_out
    file.write_text("model,hw\n")
    with pytest.raises(InputError, match="has no column 'concurrency'"):
        read_points(file, read_catalogue())


def test_a_row_that_no_such_chips_could_have_run_is_left_out_and_the_same_row_at_a_possible_load_is_kept(
    tmp_path: Path,
) -> None:
    file = tmp_path / "points.csv"
    file.write_text(
        "source,model,hw,n_chips,precision,isl,osl,concurrency,tok_s_per_user,framework,tp\n"
        "theirs,Qwen3-32B,b200,2,fp4,15000,500,416,73.23,trtllm 1.3.0rc5,2\n"
        "theirs,Qwen3-32B,b200,2,fp4,15000,500,16,73.23,trtllm 1.3.0rc5,2\n"
    )
    found = read_points(file, read_catalogue())
    assert [point.wanted.load.concurrency for point in found.points] == [16]
    assert [reason.startswith("faster than its chips can be") for reason in found.left_out] == [True]


def test_of_the_shipped_points_only_three_are_beyond_their_chips() -> None:
    left_out = measured_points(read_catalogue()).left_out
    assert [count for reason, count in left_out.items() if reason.startswith("faster than its chips")] == [3]


def test_parallel_degrees_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="3 chips have tensor parallel 2"):
        Configuration(
            facts=read_facts("Qwen3-8B"),
            sheet=read_catalogue().sheet("h100"),
            engine=Engine("vllm"),
            precision="fp8",
            load=Load(1, 1, 1),
            chips=3,
            tensor=2,
        )
