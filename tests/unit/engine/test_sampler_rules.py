"""Each rule that changes what may be chosen, against a plain statement of it, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from inlay.engine.sampler import choose, penalised, score, survivors
from inlay.specs.sampling import History, Sampling

SIZE = 24
token_ids = some.integers(0, SIZE - 1)
sequences = some.lists(token_ids, max_size=30).map(tuple)


def logits(count: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype("f4") * 3


def bits(allowed: Sequence[int], size: int = SIZE) -> bytes:
    """The packed mask, built bit by bit."""
    packed = bytearray((size + 7) // 8)
    for token in allowed:
        packed[token // 8] |= 1 << (token % 8)
    return bytes(packed)


def stated(values: np.ndarray, sampling: Sampling, history: History) -> list[float]:
    """The penalties as vLLM and OpenAI document them, one token at a time."""
    found = []
    for token, logit in enumerate(values.tolist()):
        logit += sum(amount for other, amount in sampling.bias if other == token)
        if token in history.prompt or token in history.generated:
            logit = logit / sampling.repetition if logit > 0 else logit * sampling.repetition
        times = history.generated.count(token)
        found.append(logit - times * sampling.frequency - (sampling.presence if times else 0.0))
    return found


@given(
    prompt=sequences,
    generated=sequences,
    bias=some.dictionaries(token_ids, some.floats(-100, 100)),
    repetition=some.floats(0.1, 2),
    frequency=some.floats(-2, 2),
    presence=some.floats(-2, 2),
)
def test_bias_and_penalties_are_as_stated(prompt, generated, bias, repetition, frequency, presence) -> None:
    sampling = Sampling(bias=tuple(bias.items()), repetition=repetition, frequency=frequency, presence=presence)
    history = History(prompt=prompt, generated=generated)
    values = logits()
    before = values.copy()
    assert penalised(values, sampling, history=history) == pytest.approx(stated(values, sampling, history), abs=1e-9)
    assert np.array_equal(values, before)


@given(prompt=sequences, generated=sequences, drafts=sequences)
def test_a_history_goes_on_over_drafts(prompt, generated, drafts) -> None:
    history = History(prompt=prompt, generated=generated)
    assert history.then(drafts) == History(prompt=prompt, generated=generated + drafts)


def test_a_token_of_the_prompt_counts_for_repetition_and_for_nothing_else() -> None:
    values = np.array([2.0, 1.9, -1.0], "f4")
    history = History(prompt=(0,))
    assert choose(values, Sampling(temperature=0, presence=2, frequency=2), position=1, history=history).token == 0
    assert choose(values, Sampling(temperature=0, repetition=1.2), position=1, history=history).token == 1


def test_penalties_reach_the_choice_in_both_ways_of_choosing() -> None:
    values = np.array([5.0, 4.0, 0.0], "f4")
    told = History(generated=(0, 0))
    for temperature in (0.0, 1e-6):
        assert choose(values, Sampling(temperature=temperature, frequency=1.0), position=0, history=told).token == 1
        assert choose(values, Sampling(temperature=temperature, frequency=0.4), position=0, history=told).token == 0
        assert choose(values, Sampling(temperature=temperature, bias=((2, 9.0),)), position=0).token == 2


@pytest.mark.parametrize("min_p", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_min_p_keeps_what_is_at_least_so_likely_beside_the_likeliest(min_p, temperature) -> None:
    values = logits(5000, seed=3)
    mass = [math.exp(float(value) / temperature) for value in values]
    wanted = {token for token, each in enumerate(mass) if each >= min_p * max(mass)}
    assert set(survivors(values, Sampling(temperature=temperature, min_p=min_p))) == wanted


def test_min_p_comes_before_top_k_and_top_p() -> None:
    values = np.log(np.array([0.4, 0.3, 0.2, 0.1], "f4"))
    assert set(survivors(values, Sampling(min_p=0.4, top_k=2))) == {0, 1}
    assert set(survivors(values, Sampling(min_p=0.4, top_k=4))) == {0, 1, 2}
    # 0.4 and 0.3 of what min-p left (0.9) are 0.78 together.
    assert set(survivors(values, Sampling(min_p=0.4, top_p=0.77))) == {0, 1}
    assert set(survivors(values, Sampling(min_p=0.4, top_p=0.79))) == {0, 1, 2}


@given(
    allowed=some.sets(token_ids, min_size=1),
    temperature=some.sampled_from([0.0, 0.3, 1.0, 3.0]),
    position=some.integers(0, 500),
)
def test_a_mask_lets_nothing_else_through(allowed, temperature, position) -> None:
    found = choose(logits(), Sampling(temperature=temperature, seed=5), position=position, mask=bits(sorted(allowed)))
    assert found.token in allowed


def test_a_mask_that_allows_all_changes_nothing_and_an_empty_one_is_none() -> None:
    values = logits()
    for position in range(200):
        plain = choose(values, Sampling(seed=2), position=position)
        assert choose(values, Sampling(seed=2), position=position, mask=bits(range(SIZE))) == plain
        assert choose(values, Sampling(seed=2), position=position, mask=b"") == plain


def test_the_masked_choice_follows_the_softmax_over_what_is_allowed() -> None:
    values, draws, allowed = logits(), 20000, [2, 3, 7, 11, 19]
    mass = np.exp(values[allowed].astype("f8"))
    wanted = draws * mass / mass.sum()
    mask = bits(allowed)
    drawn = [choose(values, Sampling(seed=9), position=i, mask=mask).token for i in range(draws)]
    counts = np.array([drawn.count(token) for token in allowed])
    assert float(((counts - wanted) ** 2 / wanted).sum()) < 18.5  # 4 degrees of freedom, one chance in a thousand


def test_a_mask_goes_before_forbidden_tokens_only_where_nothing_else_is_left() -> None:
    values = logits()
    assert choose(values, Sampling(temperature=0, forbidden=(4,)), position=0, mask=bits([4])).token == 4
    assert choose(values, Sampling(temperature=0, forbidden=(4,)), position=0, mask=bits([4, 6])).token == 6


def test_a_mask_that_allows_nothing_or_is_too_short_is_an_error() -> None:
    with pytest.raises(ValueError, match="allows no token at position 3"):
        choose(logits(), Sampling(), position=3, mask=bits([]))
    with pytest.raises(ValueError, match="16 bits, expected at least 24"):
        choose(logits(), Sampling(), position=3, mask=b"\xff\xff")


def test_log_probabilities_stay_those_of_the_raw_logits_whatever_is_allowed() -> None:
    values = logits()
    wanted = values.astype("f8") - np.log(np.exp(values.astype("f8")).sum())
    worst = int(values.argmin())
    sampling = Sampling(temperature=0, top_n=2, bias=((worst, 100.0),), presence=1.0, repetition=1.5)
    found = choose(values, sampling, position=0, mask=bits([worst, 1]), history=History(generated=(1, worst)))
    assert found.token == worst
    assert found.logprob == pytest.approx(wanted[worst], abs=1e-9)
    assert [token for token, _ in found.top] == list(np.argsort(-wanted)[:2])


def test_scores_are_the_log_probabilities_of_the_tokens_asked_for() -> None:
    values = np.stack([logits(seed=seed) for seed in range(4)])
    found = score(values, [3, 0, 23, 7], top_n=3)
    for row, target, one in zip(values.astype("f8"), [3, 0, 23, 7], found, strict=True):
        wanted = row - np.log(np.exp(row).sum())
        assert one.token == target and one.logprob == pytest.approx(wanted[target], abs=1e-9)
        assert [token for token, _ in one.top] == list(np.argsort(-wanted)[:3])
        assert [value for _, value in one.top] == pytest.approx(sorted(wanted, reverse=True)[:3], abs=1e-9)
