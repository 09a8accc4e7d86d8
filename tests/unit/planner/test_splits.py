"""Splits of prompts and decoding with the real step model: they are chosen where they pay, and lose over a slow link."""

from __future__ import annotations

import pytest

from inlay.cost.ownership import PriceList
from inlay.cost.serving import Predictor
from inlay.hardware.catalogue import read_catalogue
from inlay.models.facts import read_facts
from inlay.planner.candidates import KnownSteps, groups
from inlay.planner.programme import Instance, Mix
from inlay.planner.question import Question, parse_fleet, parse_load
from inlay.planner.splits import mixed

CATALOGUE = read_catalogue()
PREDICTOR = Predictor.shipped()


def _mixed(bandwidth: float, floor: float | None) -> tuple[tuple[tuple[Instance, int], ...], Mix] | None:
    question = Question(
        model="gpt-oss-120b", fleet=parse_fleet("b200:4,h200:4"), load=parse_load("isl=8192,osl=1024"), floor=floor
    )
    known: KnownSteps = {}
    groups(question, read_facts("gpt-oss-120b"), catalogue=CATALOGUE, predictor=PREDICTOR, known=known)
    return mixed(question, known, catalogue=CATALOGUE, prices=PriceList(catalogue=CATALOGUE), bandwidth=bandwidth)


def test_a_floor_that_prompts_beside_would_break_makes_a_split_win_and_a_slow_link_undoes_it() -> None:
    fast, slow = _mixed(50e9, 150.0), _mixed(1e6, 150.0)
    assert fast is not None and slow is not None
    assert {item.role for item, _ in fast[0]} >= {"prefill", "decode"}
    assert {item.role for item, _ in slow[0]} == {"serve"}
    assert fast[1].throughput > slow[1].throughput
    assert fast[1].gap == pytest.approx(0.0, abs=1e-5)


def test_a_floor_that_no_step_keeps_gives_no_mix() -> None:
    assert _mixed(50e9, 1e6) is None
