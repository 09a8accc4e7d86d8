"""The search keeps what was asked, says what is missing where nothing does, and refuses what cannot be meant."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.cost.ownership import PriceList
from inlay.cost.serving import Predictor
from inlay.errors import ClusterError, InputError
from inlay.hardware.catalogue import read_catalogue
from inlay.models.facts import read_facts
from inlay.planner.drafting import DraftingAssumptions, accepted, draft_seconds, parse_draft
from inlay.planner.question import Question, parse_fleet, parse_load
from inlay.planner.search import Answer, answer, frontier

CATALOGUE = read_catalogue()
PREDICTOR = Predictor.shipped()


def ask(chips: str = "b200:4,corsair:4", **changed: object) -> Answer:
    question = Question(
        model="gpt-oss-120b",
        fleet=parse_fleet(chips),
        load=parse_load("isl=8192,osl=1024"),
        draft=parse_draft("1.6b", acceptance=0.8),
        own_draft=parse_draft("0.8b/1", acceptance=0.75),
    )
    question = msgspec.structs.replace(question, **changed)
    facts = read_facts("gpt-oss-120b")
    return answer(question, facts, catalogue=CATALOGUE, predictor=PREDICTOR, prices=PriceList(catalogue=CATALOGUE))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_a_frontier_is_those_that_no_other_beats_and_equal_ones_once(points: list[tuple[int, int]]) -> None:
    user, value = (np.array([float(point[index]) for point in points]) for index in (0, 1))
    found = frontier(user, value, np.ones(len(points), dtype=bool))
    beaten = {p for p in points for q in points if q[0] >= p[0] and q[1] >= p[1] and q != p}
    assert sorted(points[index] for index in found) == sorted(set(points) - beaten)


def test_the_recommended_plan_keeps_everything_and_is_the_best_that_does() -> None:
    found = ask(floor=250.0, budgets={"ttft": 1.0})
    plan = found.recommended
    assert plan is not None
    assert plan.interactivity >= 250 and plan.ttft <= 1.0
    rivals = [item for item in found.frontiers["kilowatt"]["every plan"] if item.interactivity >= 250 and item.ttft <= 1.0]
    assert plan.per_kilowatt == pytest.approx(max(item.per_kilowatt for item in rivals))
    assert plan.chips.get("b200", 0) <= 4 and plan.chips.get("corsair", 0) <= 4
    assert plan.grade == "modelled" or plan.speculation is None


def test_an_engine_that_was_measured_at_this_shape_is_not_beaten_by_a_guess_about_another() -> None:
    found = ask(chips="h200:8", draft=None, own_draft=None)
    assert found.recommended is not None
    assert found.recommended.grade == "calibrated"
    assert found.recommended.stages[0].engine.startswith("vllm")


def test_not_to_split_wins_where_speed_is_not_asked_for() -> None:
    found = ask(own_draft=None, floor=20.0)
    assert found.recommended is not None
    assert found.recommended.kind == "aggregated"


def test_what_no_plan_can_keep_is_named_with_the_nearest() -> None:
    found = ask(chips="b200:4", floor=5000.0, budgets={"ttft": 10.0})
    assert found.recommended is None
    assert len(found.nearest) == 1
    told = {line.split(":")[0]: line for line in found.missing}
    assert "no plan keeps it" in told["floor of 5000 tokens/s per user"]
    assert "can be kept alone" in told["budget ttft 10000 ms"]


def test_caps_bound_the_whole_plan() -> None:
    found = ask(chips="b200:8", floor=50.0, cap_kilowatts=5.2)
    assert found.recommended is not None
    assert found.recommended.kilowatts <= 5.2
    assert found.recommended.chips["b200"] == 3
    dear = ask(chips="b200:8", floor=50.0, cap_dollars=0.5)
    assert dear.recommended is None
    assert "at most $0.5 an hour" in dear.missing[1]


def test_contradictions_name_the_pair_and_typos_the_right_name() -> None:
    with pytest.raises(InputError, match="--without nvidia contradicts the chips b200"):
        ask(chips="b200:4", without=("nvidia",))
    with pytest.raises(InputError, match=r"ttft 2000 ms and e2e 1000 ms contradict"):
        ask(budgets={"ttft": 2.0, "e2e": 1.0})
    with pytest.raises(InputError) as caught:
        ask(without=("nvdia",))
    assert caught.value.hint == "did you mean nvidia?"
    with pytest.raises(ClusterError) as wrong:
        ask(chips="b20:4")
    assert "b200" in (wrong.value.hint or "")


@pytest.mark.parametrize("text", ["isl=0", "hit=1", "rate=3", "isl=x", "isl=1,isl=2"])
def test_a_load_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="workload has"):
        parse_load(text)


def test_drafts_out_of_sram_take_what_the_bytes_take_and_spill_when_it_is_full() -> None:
    """1.6 GB at half of 150 TB/s are 21 us, beside 60; 100 sequences of 8K add 13 GB, most of it read at 0.4 TB/s."""
    draft, sheet, given_ = parse_draft("1.6b", acceptance=0.8), CATALOGUE.sheet("corsair"), DraftingAssumptions()
    small, large = draft_seconds(draft, sheet, chips=1, batch=np.array([0.0, 100.0]), context=8192.0, given=given_)
    assert small == pytest.approx(60e-6 + 1.6e9 / 75e12)
    held = 1.6e9 + 100 * 16 * 1024 * 8192
    assert large == pytest.approx(60e-6 + 2.048e9 / 75e12 + (held - 2.048e9) / 0.4e12)
    assert accepted(0.8, 4) == pytest.approx(1 + 0.8 + 0.8**2 + 0.8**3 + 0.8**4)
