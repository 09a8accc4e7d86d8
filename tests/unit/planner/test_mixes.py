"""Prefill and decode apart or whole: told by floor, and "do not split" where the link cannot carry the KV."""

from __future__ import annotations

import msgspec
import pytest

from inlay.cost.ownership import PriceList
from inlay.cost.serving import Predictor
from inlay.hardware.catalogue import read_catalogue
from inlay.models.facts import read_facts
from inlay.planner import KnownSteps, Question, answer, parse_fleet, parse_load
from inlay.planner.report import Table, mix_table, worth_table

CATALOGUE = read_catalogue()


@pytest.fixture(scope="module")
def asked() -> tuple[Question, KnownSteps, PriceList]:
    question = Question(model="gpt-oss-120b", fleet=parse_fleet("b200:4,h200:4"), load=parse_load("isl=8192,osl=1024"))
    known: KnownSteps = {}
    prices = PriceList(catalogue=CATALOGUE)
    facts = read_facts("gpt-oss-120b")
    answer(question, facts, catalogue=CATALOGUE, predictor=Predictor.shipped(), prices=prices, known=known)
    return question, known, prices


def table(asked: tuple[Question, KnownSteps, PriceList], bandwidth: float) -> Table:
    question, known, prices = asked
    found = mix_table(question, known, prices=prices, bandwidth=bandwidth)
    assert found is not None
    return found


def test_the_best_of_both_is_never_less_than_whole_instances(asked) -> None:
    for row in table(asked, 50e9).rows:
        whole = 0.0 if row[1] == "cannot" else float(row[1].replace(",", ""))
        assert float(row[2].replace(",", "")) >= whole * 0.9999


def test_a_link_too_thin_for_kv_answers_do_not_split(asked) -> None:
    thick, thin = table(asked, 50e9), table(asked, 1e3)
    assert "split" in {row[3] for row in thick.rows} and {row[3] for row in thin.rows} == {"do not split"}
    assert all("prefill" not in row[4] for row in thin.rows)
    assert "modelled" in thin.title and "8e-06 Gb/s" in thin.note


def test_a_split_names_both_of_its_roles(asked) -> None:
    for row in table(asked, 50e9).rows:
        if row[3] == "split":
            assert "prefill on" in row[4] and "decode on" in row[4]


def test_a_card_more_never_costs_and_a_card_less_never_gains(asked) -> None:
    question, known, prices = asked
    found = worth_table(question, known, prices=prices, bandwidth=50e9)
    assert found is not None and [row[0] for row in found.rows] == ["b200", "h200"]
    for _, _, _, more, less, _ in found.rows:
        assert float(more.replace(",", "")) >= 0 >= float(less.replace(",", ""))
    assert any(float(row[3].replace(",", "")) > 1000 for row in found.rows)


def test_the_last_card_of_a_kind_can_be_left_out(asked) -> None:
    question, known, prices = asked
    fleet = (*parse_fleet("b200:1"), *parse_fleet("h200:1"))
    found = worth_table(msgspec.structs.replace(question, fleet=fleet), known, prices=prices, bandwidth=50e9)
    assert found is not None
    assert all(row[4].startswith("-") for row in found.rows)


def test_a_model_too_large_for_one_chip_is_split_over_groups_that_hold_it() -> None:
    question = Question(model="Llama-3.1-70B", fleet=parse_fleet("h100:4"), load=parse_load("isl=8192,osl=1024"))
    known: KnownSteps = {}
    prices, facts = PriceList(catalogue=CATALOGUE), read_facts("Llama-3.1-70B")
    answer(question, facts, catalogue=CATALOGUE, predictor=Predictor.shipped(), prices=prices, known=known)
    found = mix_table(question, known, prices=prices, bandwidth=50e9)
    assert found is not None and all(" on 1 h100" not in row[4] for row in found.rows)
