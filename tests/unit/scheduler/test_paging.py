"""The pages of one runner under random events, against a plain account of them."""

from __future__ import annotations

import random

import pytest

from inlay.scheduler.paging import PagePool
from inlay.scheduler.prefix import extend_chain

PAGE = 4


def chain_of(tokens: list[int]) -> list[bytes]:
    chain: list[bytes] = []
    extend_chain(chain, tokens, page=PAGE, salt="")
    return chain


@pytest.mark.parametrize("seed", range(20))
def test_no_page_is_lost_or_given_twice_and_a_known_name_has_its_own_rows(seed: int) -> None:
    rng, pool = random.Random(seed), PagePool(24, page=PAGE)
    tables: list[tuple[list[int], list[int]]] = []  # tokens and pages of each sequence
    content: dict[int, tuple[int, ...]] = {}  # what a page holds: all tokens up to its end
    reused = 0
    for _ in range(2000):
        if rng.random() < 0.5 or not tables:
            tokens = [rng.randrange(2) for _ in range(rng.randint(1, 20))]
            chain = chain_of(tokens)
            chain = chain[: pool.length(chain)]
            needed = pool.pages_for(len(tokens)) - len(chain)
            if needed + len(chain) - pool.in_use(chain) > pool.available:
                continue
            table = pool.share(chain)
            reused += len(table)
            assert [content[page] for page in table] == [tuple(tokens[: (at + 1) * PAGE]) for at in range(len(table))]
            table += pool.take(needed)
            for at in range(len(chain), len(tokens) // PAGE):
                content[table[at]] = tuple(tokens[: (at + 1) * PAGE])
            tables.append((tokens, table))
        elif rng.random() < 0.5:
            tokens, table = rng.choice(tables)
            pool.name(table, chain_of(tokens))
            assert pool.named(table) <= len(tokens) // PAGE
        elif rng.random() < 0.02:
            pool.clear()
        else:
            _, table = tables.pop(rng.randrange(len(tables)))
            before = pool.available
            assert pool.freed_by([table]) == sum(1 for page in table if pool.users(page) == 1)
            freed = pool.freed_by([table])
            pool.give(table)
            assert pool.available == before + freed
        used = {page for _, table in tables for page in table}
        assert pool.used == len(used) and pool.available == pool.count - len(used)
        assert all(pool.users(page) == sum(table.count(page) for _, table in tables) for page in range(pool.count))
    assert reused > 50
    for _, table in tables:
        pool.give(table)
    assert pool.available == len(set(pool.take(pool.count))) == pool.count


def test_what_was_used_last_is_kept_longest_and_a_chain_goes_from_its_end() -> None:
    pool = PagePool(6, page=PAGE)
    old, new = chain_of([1] * 8), chain_of([2] * 12)
    for chain in (old, new):
        table = pool.take(len(chain))
        pool.name(table, chain)
        pool.give(table)
    pool.take(2)  # the one that is free, and the end of the older chain
    assert (pool.length(old), pool.length(new)) == (1, 3)
    pool.take(1)
    assert (pool.length(old), pool.length(new)) == (0, 3)
    pool.take(1)
    assert pool.length(new) == 2


def test_a_page_that_nobody_uses_cannot_be_given_back() -> None:
    pool = PagePool(3, page=PAGE)
    table = pool.take(2)
    pool.give(table)
    with pytest.raises(ValueError, match="is given back and nobody uses it"):
        pool.give(table)
