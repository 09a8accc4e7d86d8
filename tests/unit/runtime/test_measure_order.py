"""The order of rounds, how often a short run is repeated, and what samples say: the parts of measuring without a process."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.errors import DeviceError, InlayError, InputError
from inlay.runtime.intervals import quartiles, ratio_interval
from inlay.runtime.measure import interleave, repeats_for, seconds_of, time_runs


def never(name: str, error: InlayError) -> None:
    raise AssertionError(f"{name} failed: {error}")


def test_every_candidate_has_its_turn_before_any_has_its_next() -> None:
    order: list[str] = []
    turns = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}  # type: ignore[misc]
    samples = interleave(turns, rounds=4, failed=never)
    assert ["".join(order[at : at + 3]) for at in range(0, 12, 3)] == ["abc", "bca", "cab", "abc"]
    assert samples == {"a": [1.0, 6.0, 8.0, 10.0], "b": [2.0, 4.0, 9.0, 11.0], "c": [3.0, 5.0, 7.0, 12.0]}


def test_one_that_fails_is_told_once_and_has_no_samples() -> None:
    told: list[tuple[str, str]] = []
    taken: list[str] = []

    def turn(name: str) -> float:
        taken.append(name)
        if name == "b" and taken.count("b") == 2:
            raise DeviceError("planted")
        return 1.0

    turns = {name: lambda name=name: turn(name) for name in "abc"}  # type: ignore[misc]
    samples = interleave(turns, rounds=5, failed=lambda name, error: told.append((name, error.message)))
    assert told == [("b", "planted")] and samples == {"a": [1.0] * 5, "c": [1.0] * 5} and taken.count("b") == 2


def test_no_candidates_are_no_samples_and_rounds_must_be_some() -> None:
    assert interleave({}, rounds=3, failed=never) == {}
    with pytest.raises(InputError, match="0 rounds within inf s"):
        interleave({"a": lambda: 1.0}, rounds=0, failed=never)
    with pytest.raises(InputError, match="1 rounds within 0 s"):
        interleave({"a": lambda: 1.0}, rounds=1, seconds=0, failed=never)


def test_no_turn_begins_after_the_time_is_used_up_but_the_first_round_is_whole() -> None:
    def turn() -> float:
        time.sleep(0.02)
        return 0.02

    samples = interleave({"a": turn, "b": turn}, rounds=1000, seconds=0.1, failed=never)
    assert 1 <= len(samples["b"]) <= len(samples["a"]) <= len(samples["b"]) + 1 <= 4
    assert {len(taken) for taken in interleave({"a": turn, "b": turn}, rounds=9, seconds=1e-9, failed=never).values()} == {1}


class Clock:
    """Time that passes only while something runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.runs = 0, 0
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)

    def run(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.runs += 1


def test_seconds_are_those_of_one_run_however_often_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert seconds_of(lambda: clock.run(5_000)) == pytest.approx(5e-6)
    assert seconds_of(lambda: clock.run(5_000), repeats=400) == pytest.approx(5e-6) and clock.runs == 401


@pytest.mark.parametrize("nanoseconds", [100, 5_000, 50_000, 1_900_000, 2_000_000, 10**9])
def test_a_short_run_is_repeated_until_a_sample_is_long_enough(monkeypatch: pytest.MonkeyPatch, nanoseconds: int) -> None:
    clock = Clock(monkeypatch)
    repeats = repeats_for(lambda: clock.run(nanoseconds), shortest=0.002)
    assert 2_000_000 <= repeats * nanoseconds <= max(2_500_000, 2 * nanoseconds)
    assert clock.now <= 3 * repeats * nanoseconds  # finding it out costs little
    clock.runs = 0
    assert time_runs(lambda: clock.run(nanoseconds), samples=4, warm_up=2) == pytest.approx([nanoseconds * 1e-9] * 4)
    assert clock.runs >= 2 + 4 * repeats


def test_the_real_clock_runs_while_something_sleeps() -> None:
    assert 0.05 <= seconds_of(lambda: time.sleep(0.05), repeats=3) < 0.1


def test_quartiles_are_interpolated() -> None:
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([1.0, 2.0]) == (1.25, 1.5, 1.75)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    with pytest.raises(InputError, match="no samples"):
        quartiles([])


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_quartiles_are_in_order_and_within_the_samples(samples: list[float]) -> None:
    low, median, high = quartiles(samples)
    assert min(samples) <= low * (1 + 1e-12) and low <= median <= high and high <= max(samples) * (1 + 1e-12)


def test_the_interval_of_a_ratio_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    inside = 0
    for seed in range(200):
        ours = 1.3 * generator.lognormal(0.0, 0.2, 40)
        theirs = generator.lognormal(0.0, 0.2, 40)
        found = ratio_interval(ours, theirs, seed=seed, resamples=500, paired=False)
        inside += found.low <= 1.3 <= found.high
    assert 180 <= inside <= 199


def test_noise_that_hits_a_whole_round_leaves_a_paired_ratio_alone() -> None:
    generator = np.random.default_rng(3)
    noise = generator.lognormal(0.0, 0.5, 30)
    ours, theirs = 1.1 * noise * generator.lognormal(0, 0.005, 30), noise * generator.lognormal(0, 0.005, 30)
    paired, apart = ratio_interval(ours, theirs), ratio_interval(ours, theirs, paired=False)
    assert 1.05 < paired.low <= paired.value <= paired.high < 1.15
    assert apart.high - apart.low > 3 * (paired.high - paired.low) and apart.low < 1 < apart.high


def test_equal_samples_have_the_ratio_one_and_the_same_seed_the_same_interval() -> None:
    samples = list(np.random.default_rng(1).lognormal(0, 0.1, 30))
    same = ratio_interval(samples, samples)
    assert (same.value, same.low, same.high, same.grade) == (1.0, 1.0, 1.0, "measured")
    others = [1.01 * item for item in reversed(samples)]
    assert ratio_interval(samples, others, seed=5) == ratio_interval(samples, others, seed=5)
    assert ratio_interval(samples, others, seed=5) != ratio_interval(samples, others, seed=6)
    two = [ratio_interval([1.0, 2.0], [1.0, 1.0], confidence=confidence) for confidence in (0.4, 0.6)]  # 1, 1.5, 2: 1 to 2 to 1
    assert [(item.low, item.high) for item in two] == [(1.5, 1.5), (1.0, 2.0)]
    narrow, wide = ratio_interval(samples, others, confidence=0.5), ratio_interval(samples, others, confidence=0.99)
    assert wide.low < narrow.low <= narrow.high < wide.high


@pytest.mark.parametrize(
    ("ours", "theirs", "options", "message"),
    [
        ([1.0], [1.0], {}, "1 and 1 samples, expected as many of each"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], {}, "2 and 3 samples"),
        ([1.0, 2.0], [1.0], {"paired": False}, "at least 2 of each"),
        ([1.0, 0.0], [1.0, 2.0], {}, "not above zero"),
        ([1.0, float("nan")], [1.0, 2.0], {}, "not above zero"),
        ([1.0, 2.0], [float("inf"), 2.0], {}, "not above zero"),
        ([1.0, 2.0], [1.0, 2.0], {"confidence": 1.0}, "confidence is 1.0"),
        ([1.0, 2.0], [1.0, 2.0], {"resamples": 0}, "0 resamples"),
    ],
)
def test_samples_that_say_nothing_are_refused(ours, theirs, options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        ratio_interval(ours, theirs, **options)
