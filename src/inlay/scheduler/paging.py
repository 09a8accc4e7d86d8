"""The pages of one paged runner, as bookkeeping: how many sequences use each, and what the unused ones still hold.

A page that is full and named holds rows that others may begin with. While anybody uses it it stays; after that it is kept
until its place is needed, least recently used first. The bytes are the device's, which obeys in order: a page may be given
to another sequence as soon as the messages that read it are on their way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Items


class PagePool:
    """`count` pages of `page` tokens. A sequence's table names pages in order; a page in several tables is read by all of
    them and written by none."""

    def __init__(self, count: int, *, page: int) -> None:
        self.count = count
        self.page = page
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count
        self._names: dict[int, bytes] = {}
        self._pages: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """How many can be taken: free ones, and unused ones whose rows are then forgotten."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """Pages that sequences use."""
        return self.count - self.available

    def pages_for(self, rows: int) -> int:
        """How many pages hold so many rows."""
        return -(-rows // self.page)

    def users(self, page: int) -> int:
        """In how many tables a page is."""
        return self._users[page]

    def take(self, count: int) -> list[int]:
        """Pages that nobody uses, each with one user now. The caller has checked that there are so many."""
        found = []
        for _ in range(count):
            page = self._free.pop() if self._free else self._forget_oldest()
            self._users[page] = 1
            found.append(page)
        return found

    def give(self, table: Items[int]) -> None:
        """One user less for each of these. Those of the end of a table are forgotten first."""
        for page in reversed(table):
            if self._users[page] < 1:
                raise ValueError(f"page {page} is given back and nobody uses it")
            self._users[page] -= 1
            if not self._users[page]:
                if page in self._names:
                    self._idle[page] = None
                else:
                    self._free.append(page)

    def length(self, chain: Items[bytes]) -> int:
        """How many pages of the beginning of a chain are known; touches nothing."""
        return next((at for at, name in enumerate(chain) if name not in self._pages), len(chain))

    def in_use(self, chain: Items[bytes]) -> int:
        """How many of these known pages somebody uses: sharing them takes nothing away."""
        return sum(1 for name in chain if self._users[self._pages[name]])

    def share(self, chain: Items[bytes]) -> list[int]:
        """The pages of these known names, each with one user more."""
        found = [self._pages[name] for name in chain]
        for page in found:
            self._idle.pop(page, None)
            self._users[page] += 1
        return found

    def name(self, table: Items[int], chain: Items[bytes]) -> None:
        """The first pages of a table are full and hold what these names say; a name that has a page already keeps it."""
        for page, name in zip(table, chain, strict=False):
            if name not in self._pages and page not in self._names:
                self._pages[name], self._names[page] = page, name

    def named(self, table: Items[int]) -> int:
        """How many pages of the beginning of a table have a name: their rows are valid and must not be written."""
        return next((at for at, page in enumerate(table) if page not in self._names), len(table))

    def freed_by(self, tables: Iterable[Items[int]]) -> int:
        """How many pages would have no user left if these tables were given back."""
        less: dict[int, int] = {}
        for table in tables:
            for page in table:
                less[page] = less.get(page, 0) + 1
        return sum(1 for page, count in less.items() if self._users[page] == count)

    def clear(self) -> None:
        """Forget what all pages hold (the device has gone); tables are still to be given back."""
        self._free += self._idle
        self._idle.clear()
        self._names.clear()
        self._pages.clear()

    def _forget_oldest(self) -> int:
        page, _ = self._idle.popitem(last=False)
        del self._pages[self._names.pop(page)]
        return page
