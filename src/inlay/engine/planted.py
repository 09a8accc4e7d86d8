"""Planted faults: what the tests of the hand-off must catch. Inactive unless a device process is configured with one.

Every fault acts after the checks of the transfer, on bytes that are already believed, so it shows what the
comparison of tokens can see when the protocol cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inlay.errors import InputError

Array = np.ndarray[Any, Any]
Pages = Sequence[tuple[Array, Array]]
FAULTS = ("none", "position", "last_row", "first_rows", "other_pages")
ZEROED_ROWS = 16


class Plant:
    """One fault by name: "position" (decode rows one position late), "last_row" (the last imported row disturbed),
    "first_rows" (the first 16 rows zeroed), "other_pages" (the pages of the transfer before this one)."""

    def __init__(self, fault: str = "none") -> None:
        if fault not in FAULTS:
            raise InputError(f"planted fault is {fault!r}, expected one of {', '.join(FAULTS)}")
        self._fault = fault
        self._kept: dict[int, list[tuple[Array, Array]]] = {}
        self._current: tuple[int, list[tuple[Array, Array]]] | None = None
        self._previous: list[tuple[Array, Array]] | None = None

    def past_length(self, length: int) -> int:
        """The number of valid rows that a decode row is told."""
        return length - 1 if self._fault == "position" and length > 1 else length

    def imported(self, pages: Pages, *, transfer: int, start: int, total: int) -> Pages:
        """The pages that are written in place of the verified ones; rows start .. of a prompt of `total` rows."""
        if self._fault == "last_row":
            return [(_disturbed(keys, total - 1 - start), values) for keys, values in pages]
        if self._fault == "first_rows":
            return [(_zeroed(keys, start), _zeroed(values, start)) for keys, values in pages]
        if self._fault == "other_pages":
            return self._swapped(pages, transfer, start)
        return pages

    def _swapped(self, pages: Pages, transfer: int, start: int) -> Pages:
        mine = [(keys.copy(), values.copy()) for keys, values in pages]
        if self._current is None or self._current[0] != transfer:
            self._previous = None if self._current is None else self._current[1]
            self._current = (transfer, mine)
        else:
            joined = zip(self._current[1], mine, strict=True)
            self._current = (
                transfer,
                [(np.concatenate([a, c]), np.concatenate([b, d])) for (a, b), (c, d) in joined],
            )
        if self._previous is None:
            return pages
        count = pages[0][0].shape[0]
        return [
            (_over(keys, old_k, start, count), _over(values, old_v, start, count))
            for (keys, values), (old_k, old_v) in zip(pages, self._previous, strict=True)
        ]


def _disturbed(keys: Array, row: int) -> Array:
    if not 0 <= row < keys.shape[0]:
        return keys
    changed = keys.copy()
    changed[row] = -changed[row]
    return changed


def _zeroed(page: Array, start: int) -> Array:
    changed = page.copy()
    changed[: max(0, ZEROED_ROWS - start)] = 0
    return changed


def _over(page: Array, other: Array, start: int, count: int) -> Array:
    """`page` with as many of its rows as the other prompt has replaced by those."""
    changed = page.copy()
    rows = other[start : start + count]
    changed[: rows.shape[0]] = rows
    return changed
