"""The slots of one runner: which are free, per capacity, and the range of them that a batch covers."""

from __future__ import annotations

from inlay.specs.device import SlotAddress
from inlay.specs.schedule import RunnerFacts


class SlotPool:
    """Free slots of one runner, per capacity. Where a capacity has fewer slots than the runner takes sequences, a sequence
    that must grow may find none: the scheduler then takes one from another sequence. On a paged runner a slot is a number that
    tells sequences apart: all are of the largest capacity."""

    def __init__(self, facts: RunnerFacts) -> None:
        self.capacities = facts.capacities[-1:] if facts.paged else facts.capacities
        rooms = (facts.slots,) * len(self.capacities) if facts.paged or not facts.rooms else facts.rooms
        self._rooms = dict(zip(self.capacities, rooms, strict=True))
        self._free = {capacity: set(range(count)) for capacity, count in self._rooms.items()}

    def capacity_for(self, rows: int) -> int | None:
        """The smallest capacity that holds `rows`, or None when none does."""
        return next((capacity for capacity in self.capacities if capacity >= rows), None)

    def room_for(self, rows: int) -> int | None:
        """The smallest capacity that holds `rows` and has a free slot, or None."""
        return next((item for item in self.capacities if item >= rows and self._free[item]), None)

    def take(self, capacity: int) -> SlotAddress:
        """The lowest free slot of a capacity. The caller has checked that there is one."""
        free = self._free[capacity]
        index = min(free)
        free.remove(index)
        return SlotAddress(capacity, index)

    def lowest(self, capacity: int) -> int | None:
        """The lowest free index, or None."""
        return min(self._free[capacity], default=None)

    def give(self, slot: SlotAddress) -> None:
        """Return a slot."""
        self._free[slot.capacity].add(slot.index)

    def rooms(self, capacity: int) -> int:
        """How many slots a capacity has."""
        return self._rooms[capacity]

    def free_count(self) -> int:
        """Free slots over all capacities (for tests of restoration)."""
        return sum(len(free) for free in self._free.values())


def window(indices: list[int], *, start: int, rooms: int, batches: tuple[int, ...]) -> tuple[int, int]:
    """A contiguous range (first, count) of `rooms` slots that covers the ascending indices, of an allowed size (`batches`,
    empty = any). Where the largest allowed size is too small for all of them, the range begins at the first index from
    `start` on, so that all get their turn."""
    first, count = indices[0], indices[-1] - indices[0] + 1
    allowed = [size for size in batches if size <= rooms]
    if not allowed:
        return first, count
    fitting = [size for size in allowed if size >= count]
    if fitting:
        return max(0, min(first, rooms - fitting[0])), fitting[0]
    size = allowed[-1]
    first = next((index for index in indices if index >= start), indices[0])
    return max(0, min(first, rooms - size)), size
