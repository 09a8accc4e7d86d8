"""Kept prefixes of one runner, as bookkeeping: pages are named by the tokens they hold and all before them.

A name is a chain of sha256, salted, so that tenants and models never meet. The bytes are the device's; it obeys in order, so
a page may be named anew as soon as the message that read it is on its way.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Sequence as Items


def chain_start(salt: str) -> bytes:
    """What the chain of a salt begins with: 32 bytes."""
    return hashlib.sha256(b"inlay kv chain\0" + salt.encode()).digest()


def extend_chain(chain: list[bytes], tokens: Items[int], *, page: int, salt: str) -> None:
    """Add the names of the full pages of `tokens` that `chain` does not have yet."""
    name = chain[-1] if chain else chain_start(salt)
    ids, size = _as_bytes(tokens[len(chain) * page :]), 4 * page
    for start in range(0, len(ids) - size + 1, size):
        name = hashlib.sha256(name + ids[start : start + size]).digest()
        chain.append(name)


def name_of(tokens: Items[int], *, page: int, salt: str) -> bytes:
    """One name for all of these tokens, the last page full or not."""
    chain: list[bytes] = []
    extend_chain(chain, tokens, page=page, salt=salt)
    name = chain[-1] if chain else chain_start(salt)
    rest = tokens[len(chain) * page :]
    return hashlib.sha256(name + _as_bytes(rest)).digest() if rest else name


def _as_bytes(tokens: Items[int]) -> bytes:
    """Four bytes each, the lowest first."""
    return struct.pack(f"<{len(tokens)}I", *tokens)


class PageIndex:
    """Which page holds what, least recently used first. Pages of a chain are touched last page first, so that a chain is
    given up from its end."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pages: OrderedDict[bytes, int] = OrderedDict()
        self._free = list(range(count - 1, -1, -1))

    @property
    def used(self) -> int:
        """Pages that hold something."""
        return len(self._pages)

    def match(self, chain: Items[bytes]) -> tuple[int, ...]:
        """The pages of the longest known beginning of a chain, now the most recently used."""
        found: list[int] = []
        for name in chain:
            page = self._pages.get(name)
            if page is None:
                break
            found.append(page)
        for name in reversed(chain[: len(found)]):
            self._pages.move_to_end(name)
        return tuple(found)

    def length(self, chain: Items[bytes]) -> int:
        """How many pages `match` would find; touches nothing."""
        return next((i for i, name in enumerate(chain) if name not in self._pages), len(chain))

    def keep(self, chain: Items[bytes]) -> tuple[int, tuple[int, ...]]:
        """Give pages to the names that have none: the number of the first of them and the pages, one run.

        What lies behind a name that is known already is known or was given up; only a run at the end can be missing. Where
        there are fewer pages than names, the end of the chain is left out.
        """
        known = self.length(chain)
        for name in reversed(chain[:known]):
            self._pages.move_to_end(name)
        given: list[int] = []
        for name in chain[known : self.count]:
            page = self._pages.pop(name) if name in self._pages else self._take()
            self._pages[name] = page
            given.append(page)
        for name in reversed(chain[: known + len(given)]):
            self._pages.move_to_end(name)
        return known, tuple(given)

    def clear(self) -> None:
        """Forget everything (the device has gone)."""
        self._pages.clear()
        self._free = list(range(self.count - 1, -1, -1))

    def _take(self) -> int:
        """A free page, or the one that was used least recently: never of the chain in hand, whose pages were just touched
        and are no more than there are."""
        return self._free.pop() if self._free else self._pages.popitem(last=False)[1]
