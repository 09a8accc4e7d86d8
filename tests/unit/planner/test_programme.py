"""Counts of instances from HiGHS, against all counts tried one by one, and whether splitting wins only where it should."""

from __future__ import annotations

import itertools
import random

import pytest

from inlay.errors import InputError
from inlay.planner.programme import Instance, Limits, best_mix, throughput_of

OUT = 100.0


def _drawn(seed: int) -> tuple[list[Instance], Limits]:
    draw = random.Random(seed)
    roles = ["serve", "prefill", "decode", "prefill", "decode"]
    items = [
        Instance(
            name=f"{role}{at}",
            role=role,  # type: ignore[arg-type]
            chips={draw.choice("ab"): draw.choice([1, 2])},
            kilowatts=draw.uniform(0.5, 3.0),
            dollars=None if draw.random() < 0.1 else draw.uniform(1.0, 5.0),
            rate=0.0 if role == "prefill" else draw.uniform(50, 500),
            prompts=draw.uniform(1, 6) if role == "prefill" else 0.0,
        )
        for at, role in enumerate(roles)
    ]
    return items, Limits(chips={"a": 4, "b": 3}, kilowatts=draw.uniform(5, 12), dollars=draw.uniform(8, 25))


def _by_hand(items: list[Instance], limits: Limits) -> float:
    best = 0.0
    for counts in itertools.product(range(5), repeat=len(items)):
        used = list(zip(items, counts, strict=True))
        if any(sum(i.chips.get(chip, 0) * n for i, n in used) > have for chip, have in limits.chips.items()):
            continue
        if limits.kilowatts is not None and sum(i.kilowatts * n for i, n in used) > limits.kilowatts:
            continue
        if limits.dollars is not None:
            if any(n and i.dollars is None for i, n in used):
                continue
            if sum((i.dollars or 0.0) * n for i, n in used) > limits.dollars:
                continue
        best = max(best, throughput_of(items, counts, output_tokens=OUT))
    return best


@pytest.mark.parametrize("seed", range(25))
def test_the_mix_is_the_best_of_all_counts_tried_one_by_one(seed: int) -> None:
    items, limits = _drawn(seed)
    found = best_mix(items, limits, output_tokens=OUT)
    assert found.throughput == pytest.approx(_by_hand(items, limits), rel=1e-5)
    assert found.gap <= 1e-5
    assert throughput_of(items, found.counts, output_tokens=OUT) == found.throughput


def _pair(alone: float, *, bandwidth: float = 1e12) -> list[Instance]:
    serve = Instance(name="whole", role="serve", chips={"a": 1}, kilowatts=1.0, dollars=1.0, rate=alone)
    prefill = Instance(name="prompts", role="prefill", chips={"a": 1}, kilowatts=1.0, dollars=1.0, prompts=6.0)
    decode = Instance(name="tokens", role="decode", chips={"b": 1}, kilowatts=1.0, dollars=1.0, rate=300.0)
    link = {"kv_bytes": 1e9, "bandwidth": bandwidth, "output_tokens": OUT}
    return [item.through(**link) for item in (serve, prefill, decode)]


def test_a_split_matches_the_rates_of_both_sides() -> None:
    found = best_mix(_pair(100.0), Limits(chips={"a": 2, "b": 4}), output_tokens=OUT)
    assert found.counts == (0, 2, 4)
    assert found.throughput == pytest.approx(1200.0)


def test_nothing_is_split_where_serving_whole_gives_more() -> None:
    found = best_mix(_pair(700.0), Limits(chips={"a": 2, "b": 4}), output_tokens=OUT)
    assert found.counts[:2] == (2, 0)


def test_a_slow_link_for_the_hand_over_makes_a_split_lose() -> None:
    found = best_mix(_pair(100.0, bandwidth=0.5e9), Limits(chips={"a": 2, "b": 4}), output_tokens=OUT)
    assert found.counts[:2] == (2, 0)


def test_no_instances_are_an_error_that_says_so() -> None:
    with pytest.raises(InputError, match="0 instances"):
        best_mix([], Limits(chips={}), output_tokens=OUT)
