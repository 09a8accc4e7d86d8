"""How often each slot of a runner's pool has changed hands: what a page was read from must still be the same sequence's.

The scheduler decides who holds a slot; this ledger is told of it with every order that lets a sequence write, and says
whether bytes that are copied belong to whom they are believed to. Device process only; slots are any hashable name.
"""

from __future__ import annotations

from collections.abc import Hashable

from inlay.errors import TransferError


class Generations:
    """One number a slot; it grows when another sequence takes the slot, never otherwise."""

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[int, int]] = {}

    def take(self, slot: Hashable, sequence: int) -> int:
        """A sequence may write here from now on; the slot's generation."""
        generation, holder = self._held.get(slot, (0, sequence - 1))
        if holder != sequence:
            self._held[slot] = (generation + 1, sequence)
            return generation + 1
        return generation

    def check(self, slot: Hashable, generation: int) -> None:
        """Raises TransferError(cause="generation") when the slot has changed hands since it had this generation."""
        found = self._held.get(slot, (0, 0))[0]
        if found != generation:
            raise TransferError(
                f"slot {slot} has generation {found}, expected {generation}: another sequence holds it now", cause="generation"
            )
