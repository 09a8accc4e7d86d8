"""Choosing tokens: greedy, distribution, cut-offs, reproducibility."""

from __future__ import annotations

import numpy as np
import pytest

from inlay.engine.sampler import choose, gumbel, survivors
from inlay.specs.sampling import Sampling


def logits(count: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype("f4") * 2


def test_temperature_zero_takes_the_largest_and_the_first_among_equals() -> None:
    values = np.array([1.0, 3.0, 3.0, 2.0], "f4")
    assert choose(values, Sampling(temperature=0), position=0).token == 1


def test_frequencies_are_those_of_the_softmax_by_chi_square() -> None:
    values, temperature, draws = logits(), 0.7, 20000
    wanted = np.exp(values / temperature) / np.exp(values / temperature).sum()
    sampling = Sampling(temperature=temperature, seed=11)
    counts = np.bincount([choose(values, sampling, position=i).token for i in range(draws)], minlength=20)
    statistic = float(((counts - draws * wanted) ** 2 / (draws * wanted)).sum())
    assert statistic < 43.8  # 19 degrees of freedom, one chance in a thousand
    flat = np.full(20, 1 / 20)
    assert float(((counts - draws * flat) ** 2 / (draws * flat)).sum()) > 1000


def test_the_choice_depends_on_seed_and_position_alone() -> None:
    values = logits(200)
    first = [choose(values, Sampling(temperature=1.0, seed=s), position=p).token for s in range(3) for p in range(50)]
    again = [choose(values, Sampling(temperature=1.0, seed=s), position=p).token for s in range(3) for p in range(50)]
    assert first == again
    assert len({tuple(first[i : i + 50]) for i in (0, 50, 100)}) == 3
    assert len(set(first[:50])) > 20


def test_noise_is_pinned_so_that_a_text_is_the_same_on_every_machine() -> None:
    assert gumbel(7, 3, 3) == pytest.approx([1.2669757387511702, 3.724523231493987, -0.696262504876166], rel=1e-12)
    assert np.array_equal(gumbel(7, 3, 50)[:3], gumbel(7, 3, 3))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("count", [20, 5000])
def test_top_p_keeps_the_smallest_set_of_that_mass(top_p, count) -> None:
    values = logits(count, seed=2)
    mass = np.exp(values.astype("f8")) / np.exp(values.astype("f8")).sum()
    kept = survivors(values, Sampling(temperature=1.0, top_p=top_p))
    assert mass[kept].sum() >= top_p - 1e-12
    assert mass[kept].sum() - mass[kept].min() < top_p
    assert mass[kept].min() >= np.delete(mass, kept).max()


def test_top_k_keeps_k_and_the_mass_of_top_p_is_counted_among_them() -> None:
    values = np.log(np.array([0.4, 0.3, 0.2, 0.1], "f4"))
    assert set(survivors(values, Sampling(temperature=1.0, top_k=2))) == {0, 1}
    assert set(survivors(values, Sampling(temperature=1.0, top_k=2, top_p=0.5))) == {0}
    assert set(survivors(values, Sampling(temperature=1.0, top_k=2, top_p=0.6))) == {0, 1}


def test_forbidden_tokens_never_come() -> None:
    values = logits()
    best = int(values.argmax())
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature=temperature, forbidden=(best,))
        assert all(choose(values, sampling, position=i).token != best for i in range(100))


def test_log_probabilities_are_those_of_the_raw_logits() -> None:
    values = logits()
    wanted = values.astype("f8") - np.log(np.exp(values.astype("f8")).sum())
    found = choose(values, Sampling(temperature=0, top_n=3), position=0)
    assert found.logprob == pytest.approx(wanted.max(), abs=1e-6)
    assert [item[0] for item in found.top] == list(np.argsort(-wanted)[:3])
    assert choose(values, Sampling(temperature=0), position=0).logprob is None


def test_logits_that_are_not_finite_are_an_error_with_the_count() -> None:
    values = logits()
    values[3] = np.nan
    with pytest.raises(ValueError, match="1 of 20 logits"):
        choose(values, Sampling(temperature=0), position=4)
