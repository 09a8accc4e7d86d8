"""Drafting without a model: what followed when the last few tokens were last seen. One memory per sequence, grown with it."""

from __future__ import annotations

LONGEST, SHORTEST = 4, 2


class Memory:
    """Where each run of 2 to 4 tokens of one sequence was last followed by something."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}
        self._length = 0

    def guess(self, tokens: list[int], count: int) -> list[int]:
        """Up to `count` tokens that followed the longest known run at the end of `tokens`; none where there is no such run."""
        self._learn(tokens)
        for size in range(LONGEST, SHORTEST - 1, -1):
            if len(tokens) <= size:
                continue
            at = self._seen.get(tuple(tokens[-size:]))
            if at is not None:
                return tokens[at : at + count]
        return []

    def _learn(self, tokens: list[int]) -> None:
        """Take in every token but the last, which nothing follows yet."""
        for end in range(self._length, len(tokens) - 1):
            for size in range(SHORTEST, LONGEST + 1):
                if end + 1 >= size:
                    self._seen[tuple(tokens[end + 1 - size : end + 1])] = end + 1
        self._length = max(self._length, len(tokens) - 1)
