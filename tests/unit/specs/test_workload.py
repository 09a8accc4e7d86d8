"""Workloads as people write them, and the budgets of an Slo."""

from __future__ import annotations

import pytest

from inlay.errors import InputError
from inlay.specs.slo import parse_budgets, within
from inlay.specs.workload import Workload, parse_workload


def test_a_workload_is_read() -> None:
    found = parse_workload("isl=8192, osl=lognormal:128:0.8,rate=2.5,requests=10,seed=3")
    assert found == Workload(prompt_tokens="8192", output_tokens="lognormal:128:0.8", rate=2.5, requests=10, seed=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("isl=1,rate=1,clients=2,requests=3", "rate and clients, expected one"),
        ("isl=1,requests=3", "neither rate nor clients"),
        ("rate=1", "no end"),
        ("rate=0,requests=1", "rate is 0"),
        ("rate=x,requests=1", "rate 'x', expected a number"),
        ("rate=1,requests=1.5", "requests '1.5', expected a whole number"),
        ("rat=1", "'rat=1', expected KEY=VALUE with one of isl, osl"),
        ("rate=1,rate=2,requests=1", "rate twice"),
        ("isl=ten,rate=1,requests=1", "isl is 'ten'"),
    ],
)
def test_what_contradicts_itself_is_refused(text, said) -> None:
    with pytest.raises(InputError, match=said):
        parse_workload(text)


def test_a_trace_has_times_of_its_own() -> None:
    assert parse_workload("speed=2", trace="some.csv").speed == 2
    with pytest.raises(InputError, match="times of its own"):
        parse_workload("rate=1", trace="some.csv")


def test_an_answer_keeps_all_budgets_or_does_not() -> None:
    budgets = parse_budgets("ttft:200,tpot:50")
    assert within(budgets, ttft=0.2, tpot=0.05, e2e=9.0)
    assert not within(budgets, ttft=0.2, tpot=0.051, e2e=9.0)
    assert within(budgets, ttft=0.2, tpot=None, e2e=9.0)
