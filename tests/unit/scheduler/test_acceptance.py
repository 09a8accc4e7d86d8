"""What the scheduler learns of drafts: shares that are not biased, and times that one pause does not spoil."""

from __future__ import annotations

import random

import pytest

from inlay.scheduler.acceptance import Acceptance, Pace
from inlay.specs.speculation import ENUMERATED, FREE, NGRAM, OFF, SYNCHRONOUS


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_share_is_of_drafts_and_not_a_mean_of_rounds(share: float) -> None:
    rng, found = random.Random(3), Acceptance()
    rounds = []
    for _ in range(4000):
        kept = next((place for place in range(3) if rng.random() >= share), 3)
        found.judge(3, kept, forget=1.0)
        rounds.append(kept / min(3, kept + 1))
    assert found.share(prior=0.1, weight=4.0) == pytest.approx(share, abs=0.02)
    assert abs(sum(rounds) / len(rounds) - share) > 0.05  # what the mean of rounds would have said


def test_without_verdicts_the_prior_holds() -> None:
    assert Acceptance().share(prior=0.3, weight=4.0) == pytest.approx(0.3)


def test_older_verdicts_count_less() -> None:
    found = Acceptance()
    for kept in [0] * 50 + [3] * 50:
        found.judge(3, kept, forget=0.9)
    assert found.share(prior=0.0, weight=0.0) > 0.95


def test_one_long_pause_is_not_learnt_and_a_lasting_change_is() -> None:
    pace = Pace()
    for seen in (*[0.01] * 20, 0.5, *[0.01] * 5):
        pace.learn(FREE, predicted=0.01, seen=seen)
    assert pace.of(FREE) < 1.05
    for _ in range(60):
        pace.learn(FREE, predicted=0.01, seen=0.03)
    assert pace.of(FREE) > 2.7


def test_a_mode_not_tried_fares_as_the_best_of_those_like_it() -> None:
    pace = Pace()
    for _ in range(20):
        pace.learn(SYNCHRONOUS, predicted=1.0, seen=2.0)
        pace.learn(FREE, predicted=1.0, seen=1.5)
    assert pace.of(ENUMERATED) == pytest.approx(pace.of(FREE)) and pace.of(FREE) < pace.of(SYNCHRONOUS)
    assert pace.of(NGRAM) == pace.of(OFF) == 1.0


def test_what_a_mode_was_blamed_for_fades_while_another_is_in_use() -> None:
    pace = Pace()
    for _ in range(20):
        pace.learn(ENUMERATED, predicted=1.0, seen=2.0)
    blamed = pace.of(ENUMERATED)
    for _ in range(1000):
        pace.learn(FREE, predicted=1.0, seen=1.0)
    assert blamed > 1.9 and pace.of(ENUMERATED) < 1.1
