"""Speculation changes no text: the rejection rule by exact enumeration, the coupled rule token by token, and the real
sampled path by chi-square. Each proof is shown a planted fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from inlay.engine import verifying
from inlay.engine.proposing import propose
from inlay.engine.sampler import choose
from inlay.engine.verifying import accept, distribution_of, verify
from inlay.specs.device import Row
from inlay.specs.sampling import Sampling

Array = np.ndarray[Any, Any]
VOCABULARY, DRAFTS, LENGTH = 4, 3, 4


def tables(seed: int) -> tuple[dict[tuple[int, ...], Array], dict[tuple[int, ...], Array]]:
    """A target's and a draft's next-token distribution after every context."""
    rng = np.random.default_rng(seed)
    contexts = [tokens for n in range(LENGTH + DRAFTS + 1) for tokens in itertools.product(range(VOCABULARY), repeat=n)]
    p = {tokens: rng.dirichlet(np.full(VOCABULARY, 0.7)) for tokens in contexts}
    q = {tokens: rng.dirichlet(np.full(VOCABULARY, 0.7)) for tokens in contexts}
    return p, q


def paths(run: Callable[[Callable[[Array, int], int]], list[int]]) -> list[tuple[list[int], float]]:
    """All outcomes of `run` with their exact probabilities: every draw takes every branch that is possible."""
    found: list[tuple[list[int], float]] = []
    pending: list[list[int]] = [[]]
    while pending:
        script = Script(pending.pop(), pending)
        tokens = run(script.draw)
        found.append((tokens, script.weight))
    return found


class Script:
    """Draws that were decided before, then the first possible branch; the other branches are left to later scripts."""

    def __init__(self, decided: list[int], later: list[list[int]]) -> None:
        self._decided, self._later = decided, later
        self._taken: list[int] = []
        self.weight = 1.0

    def draw(self, mass: Array, _: int) -> int:
        at = len(self._taken)
        possible = [index for index in range(len(mass)) if mass[index] > 0]
        index = self._decided[at] if at < len(self._decided) else possible[0]
        if at >= len(self._decided):
            self._later.extend([*self._taken, other] for other in possible[1:])
        self._taken.append(index)
        self.weight *= float(mass[index])
        return index


def sequence_error(rule: Any, p: dict[tuple[int, ...], Array], q: dict[tuple[int, ...], Array]) -> float:
    """The largest error over all sequences of LENGTH tokens between what rounds of `rule` give and the product of p."""

    @cache
    def one_round(context: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], float], ...]:
        total: dict[tuple[int, ...], float] = {}
        for drafts in itertools.product(range(VOCABULARY), repeat=DRAFTS):
            share, proposals = 1.0, []
            for at, token in enumerate(drafts):
                drawn_from = q[context + drafts[:at]]
                share *= float(drawn_from[token])
                proposals.append(tuple(enumerate(drawn_from.tolist())))
            targets = [p[context + drafts[:at]] for at in range(DRAFTS + 1)]
            for tokens, weight in paths(partial(rule, targets.__getitem__, drafts, proposals)):
                total[tuple(tokens)] = total.get(tuple(tokens), 0.0) + share * weight
        return tuple(total.items())

    @cache
    def distribution(context: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], float], ...]:
        if len(context) >= LENGTH:
            return ((context[:LENGTH], 1.0),)
        total: dict[tuple[int, ...], float] = {}
        for tokens, weight in one_round(context):
            for sequence, share in distribution(context + tokens):
                total[sequence] = total.get(sequence, 0.0) + weight * share
        return tuple(total.items())

    found = dict(distribution(()))
    exact = {
        tokens: float(np.prod([p[tokens[:at]][tokens[at]] for at in range(LENGTH)]))
        for tokens in itertools.product(range(VOCABULARY), repeat=LENGTH)
    }
    return max(abs(found.get(tokens, 0.0) - value) for tokens, value in exact.items())


def resample_from_the_target(distribution: Any, drafts: Any, proposals: Any, draw: Any) -> list[int]:
    """The classical mistake: after a rejection it draws from p instead of the positive part of p - q."""

    def blind(mass: Array, offset: int) -> int:
        return draw(mass if len(mass) == 2 else distribution(offset), offset)

    return accept(distribution, drafts, proposals, blind)


@pytest.mark.parametrize("seed", range(3))
def test_the_rejection_rule_gives_exactly_the_targets_distribution(seed) -> None:
    p, q = tables(seed)
    error = sequence_error(accept, p, q)
    print(f"largest error over {VOCABULARY**LENGTH} sequences: {error:.1e}")
    assert error < 1e-12


def test_the_enumeration_sees_the_classical_mistake() -> None:
    p, q = tables(0)
    assert sequence_error(resample_from_the_target, p, q) > 1e-3


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(temperature=1.0, seed=3),
        Sampling(temperature=0.7, top_p=0.8, seed=4),
        Sampling(temperature=1.5, top_k=5, seed=5),
        Sampling(temperature=1.0, seed=6, forbidden=(2,)),
    ],
)
@pytest.mark.parametrize("drafts", [1, 2, 5])
def test_under_the_coupled_rule_the_text_is_that_of_plain_decoding_whoever_drafts(sampling, drafts) -> None:
    rng = np.random.default_rng(1)
    shift = rng.normal(size=(50, 50))

    def logits(tokens: tuple[int, ...], noise: float) -> Array:
        context = np.random.default_rng(hash(tokens[-3:]) % 2**32).normal(size=50) * 2
        return (context + noise * shift[tokens[-1]]).astype(np.float32)

    plain = [7]
    while len(plain) < 120:
        plain.append(choose(logits(tuple(plain), 0.0), sampling, position=len(plain)).token)
    for noise in (0.0, 0.5, 5.0):  # a perfect draft, a fair one, a useless one
        tokens, kept, rounds = [7], 0, 0
        while len(tokens) < 120:
            guessed: list[int] = []
            for _ in range(drafts):
                context = (*tokens, *guessed)
                guessed.append(propose(logits(context, noise), sampling, position=len(context)).token)
            row = Row(
                sequence=1,
                slot=0,
                tokens=(tokens[-1], *guessed),
                past_length=len(tokens) - 1,
                sample=sampling,
                drafts=drafts,
            )
            rows = np.stack([logits((*tokens, *guessed[:at]), 0.0) for at in range(drafts + 1)])
            sampled = [item.token for item in verify(row, rows, sampling)]
            tokens += sampled
            kept, rounds = kept + len(sampled) - 1, rounds + 1
        assert tokens[:120] == plain
        share = kept / (rounds * drafts)
        assert share == 1.0 if noise == 0.0 and not sampling.forbidden else share <= 1.0
        assert share < 0.7 or noise < 5.0


def chi_square(observed: Array, expected: Array) -> float:
    """How often chance alone is this far off: the p-value."""
    filled = expected > 0
    assert not observed[~filled].any()
    statistic = (((observed - expected) ** 2) / np.where(filled, expected, 1.0))[filled].sum()
    return float(chi2.sf(statistic, filled.sum() - 1))


def sampled_pairs(count: int, p: Array, q: Array, *, truncate: int) -> Array:
    """How often each pair of first two tokens came out of the real sampled path with one draft."""
    table = np.zeros((10, 10))
    for seed in range(count):
        sampling = Sampling(temperature=1.0, seed=seed)
        guess = propose(np.log(q[10]).astype("f4"), sampling, position=1, truncate=truncate)
        row = Row(
            sequence=1,
            slot=0,
            tokens=(0, guess.token),
            past_length=0,
            sample=sampling,
            drafts=1,
            proposals=(guess.proposal,) if truncate else (),
        )
        rows = np.log(np.stack([p[10], p[guess.token]])).astype("f4")
        tokens = [item.token for item in verify(row, rows, sampling)]
        if len(tokens) == 1:
            tokens.append(choose(np.log(p[tokens[0]]).astype("f4"), sampling, position=2).token)
        table[tokens[0], tokens[1]] += 1
    return table


@pytest.mark.parametrize("truncate", [0, 4, 10])
def test_the_real_sampled_path_cannot_be_told_from_the_target(truncate) -> None:
    rng = np.random.default_rng(8)
    p, q = rng.dirichlet(np.ones(10), size=11), rng.dirichlet(np.ones(10), size=11)
    count, tests = 12_000, 3
    table = sampled_pairs(count, p, q, truncate=truncate)
    expected = count * p[10][:, None] * p[:10]
    assert chi_square(table.ravel(), expected.ravel()) > 0.01 / tests  # Bonferroni over the three rules
    wrong = count * q[10][:, None] * p[:10]
    assert chi_square(table.ravel(), wrong.ravel()) < 1e-12


def test_the_chi_square_sees_a_proposal_that_was_not_drawn_from(monkeypatch) -> None:
    rng = np.random.default_rng(8)
    p, q = rng.dirichlet(np.ones(10), size=11), rng.dirichlet(np.ones(10), size=11)
    monkeypatch.setattr(verifying, "accept", lambda d, drafts, _, draw: accept(d, drafts, [UNIFORM] * len(drafts), draw))
    table = sampled_pairs(12_000, p, q, truncate=10)
    assert chi_square(table.ravel(), (12_000 * p[10][:, None] * p[:10]).ravel()) < 1e-6


UNIFORM = tuple((token, 0.1) for token in range(10))


def test_rejection_keeps_to_the_targets_top_k_and_forbidden_tokens() -> None:
    logits = np.linspace(0, 3, 12).astype("f4")
    mass = distribution_of(logits, Sampling(temperature=0.5, top_k=4, forbidden=(11,)))
    assert np.flatnonzero(mass).tolist() == [7, 8, 9, 10] and mass.sum() == pytest.approx(1)


def test_a_token_forbidden_up_to_a_position_may_come_after_it_in_the_same_row() -> None:
    logits = np.zeros((4, 12), "f4")
    logits[:, 5], logits[:, 7] = 2.0, 1.0
    sampling = Sampling(temperature=0.0, forbidden=(5,), until=11)
    row = Row(sequence=1, slot=0, tokens=(1, 7, 7, 7), past_length=8, sample=sampling, drafts=3)
    assert [item.token for item in verify(row, logits, sampling)] == [7, 7, 5]
