"""Who waits, in fair order: higher priority first, then the tenant that was served least, then the order of arrival."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from inlay.scheduler.sequence import Sequence


class Waiting:
    """Sequences that hold nothing yet, or nothing any more. A tenant's share is counted in tokens: of prompts when they
    are placed, of answers as they grow. One that comes back after a pause begins level with the least served of the rest:
    what it did not use before is not owed to it."""

    def __init__(self) -> None:
        self._lanes: dict[int, dict[str, deque[Sequence]]] = {}
        self._served: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        """All, in no promised order."""
        return (item for lane in self._lanes.values() for queue in lane.values() for item in queue)

    def highest(self) -> float:
        """The highest priority of those who wait; minus infinity of nobody."""
        return max(self._lanes, default=-math.inf)

    def add(self, sequence: Sequence, *, first: bool = False) -> None:
        """Put it at the end of its tenant's queue, or at its head."""
        tenant = sequence.request.tenant
        lane = self._lanes.setdefault(sequence.request.priority, {})
        if tenant not in lane:
            level = min((self._served.get(other, 0) for other in lane), default=self._served.get(tenant, 0))
            self._served[tenant] = max(self._served.get(tenant, 0), level)
        queue = lane.setdefault(tenant, deque())
        if first:
            queue.appendleft(sequence)
        else:
            queue.append(sequence)
        self._count += 1

    def in_order(self) -> list[Sequence]:
        """All who wait, as they would be served if each were served now: tenants of one priority in turn by share."""
        if self._count == 0:
            return []
        ordered: list[Sequence] = []
        for priority in sorted(self._lanes, reverse=True):
            queues = {tenant: list(reversed(queue)) for tenant, queue in self._lanes[priority].items() if queue}
            shares = {tenant: self._served.get(tenant, 0) for tenant in queues}
            if len(queues) == 1:
                ordered += reversed(next(iter(queues.values())))
                continue
            while queues:
                tenant = min(queues, key=lambda item: (shares[item], queues[item][-1].number))
                sequence = queues[tenant].pop()
                ordered.append(sequence)
                shares[tenant] += len(sequence.tokens)
                if not queues[tenant]:
                    del queues[tenant]
        return ordered

    def remove(self, sequence: Sequence) -> None:
        """Take one out; ValueError where it is not there."""
        lane = self._lanes[sequence.request.priority]
        queue = lane[sequence.request.tenant]
        if queue and queue[0] is sequence:
            queue.popleft()
        else:
            queue.remove(sequence)
        if not queue:
            del lane[sequence.request.tenant]
            if not lane:
                del self._lanes[sequence.request.priority]
        self._count -= 1

    def serve(self, tenant: str, tokens: int) -> None:
        """Count tokens that a tenant was given. Only tenants beside others matter: shares are forgotten when nobody waits
        and nobody is left to compare with."""
        self._served[tenant] = self._served.get(tenant, 0) + tokens

    def forget(self, living: set[str]) -> None:
        """Drop the shares of tenants that have nothing here any more."""
        waiting = {tenant for lane in self._lanes.values() for tenant in lane}
        for tenant in set(self._served) - living - waiting:
            del self._served[tenant]
