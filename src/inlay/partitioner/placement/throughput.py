"""The placement whose busiest device is least busy, by dynamic programming over ideals, with its proof.

An ideal is a set of tasks closed under predecessors. States are (ideal, devices in use by kind); a limit on the load cuts
nearly all of them. The limit rises from a bound from below until some placement stays under it: that one is the optimum.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace

import numpy as np

from inlay.partitioner.placement.arrays import GraphArrays, graph_arrays, kind_arrays
from inlay.partitioner.placement.contract import contract
from inlay.partitioner.placement.graph import INFINITE, Piece, Placement, TaskGraph, busiest
from inlay.partitioner.placement.relaxed import Shares, shares
from inlay.partitioner.placement.sweep import Store, index, new_scratch, new_store, sweep

STEPS = (1.01, 1.03, 1.06, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
"""By how much more than the first bound the limits are."""
ROOM = 1 << 16
MOST_STATES = 4_000_000
BATCH = 256


@dataclass(frozen=True)
class Layer:
    """Devices in use by kind, and what the tasks that then remain weigh at most."""

    used: tuple[int, ...]
    shares: Shares | None
    memory: float


def fastest_stream(graph: TaskGraph, *, seconds: float = 300.0) -> Placement | None:
    """The placement with the least load of its busiest device; None where none fits.

    Exact unless the time or the room for states ends first: then the best that was found, with the bound proven until then.
    """
    small = contract(graph)
    found = _Stream(small.graph, seconds).run()
    return None if found is None else replace(found, pieces=small.expand(found.pieces))


class _Stream:
    def __init__(self, graph: TaskGraph, seconds: float) -> None:
        self.graph, self.deadline = graph, time.monotonic() + seconds
        self.order = graph.order
        self.arrays: GraphArrays = graph_arrays(graph, self.order)
        self.costs = [kind_arrays(graph, self.order, number) for number in range(len(graph.kinds))]
        self.scratch = new_scratch(graph.count, len(graph.values))
        counts = [graph.count if kind.count is None else min(kind.count, graph.count) for kind in graph.kinds]
        ranges = [range(count + 1) for count in counts]
        self.layers = [self._layer(used) for used in sorted(itertools.product(*ranges), key=sum)]
        self.number = {layer.used: number for number, layer in enumerate(self.layers)}
        self.explored = 0

    def _layer(self, used: tuple[int, ...]) -> Layer:
        kinds = self.graph.kinds
        left = [None if kind.count is None else kind.count - count for kind, count in zip(kinds, used, strict=True)]
        found = shares(self.graph, left)
        if found is not None:
            found = Shares(found.weights[list(self.order)], found.spare)
        rooms = [
            INFINITE if kind.capacity is None or count is None else kind.capacity * count
            for kind, count in zip(kinds, left, strict=True)
            if count != 0
        ]
        return Layer(used, found, sum(rooms) if rooms else 0.0)

    def run(self) -> Placement | None:
        first = self.layers[0].shares
        if first is None:
            return None
        base = float(first.weights.sum() / first.spare) if first.spare not in (0.0, INFINITE) else 0.0
        single = min(min(kind.seconds[task] for kind in self.graph.kinds) for task in range(self.graph.count))
        base = max(base, single, 1e-12)
        proven = base
        for step in (*STEPS, INFINITE):
            limit = base * step
            store, complete = self._search(limit)
            best = self._best(store)
            if best is not None:
                return self._placement(store, best, None if complete else proven)
            if not complete:
                return None
            proven = limit
        return None

    def _search(self, limit: float) -> tuple[Store, bool]:
        """All states below a limit, layer by layer, and whether nothing was left out."""
        store = new_store(self.graph.count, ROOM)
        store.length[0] = 1
        store.table[0] = 0  # the empty state: hash and layer are 0
        for layer in self.layers:
            number = self.number[layer.used]
            states = np.flatnonzero(store.layer[: store.length[0]] == number)
            for kind in range(len(self.graph.kinds)):
                following = (*layer.used[:kind], layer.used[kind] + 1, *layer.used[kind + 1 :])
                if following not in self.number or states.size == 0:
                    continue
                store, limit, complete = self._advance(store, states, self.layers[self.number[following]], kind, limit)
                if not complete:
                    return store, False
        return store, True

    def _advance(
        self, store: Store, states: np.ndarray[tuple[int], np.dtype[np.int64]], layer: Layer, kind: int, limit: float
    ) -> tuple[Store, float, bool]:
        """Every piece of one kind after every state, into a layer."""
        weights = layer.shares.weights if layer.shares else np.ones(self.graph.count)
        spare = layer.shares.spare if layer.shares else 0.0
        begin = 0
        while begin < states.size:
            if time.monotonic() > self.deadline:
                return store, limit, False
            batch = states[begin : begin + BATCH]
            limit, looked, stopped = sweep(
                self.arrays, self.costs[kind], self.scratch, store, batch, self.number[layer.used], kind,
                weights, spare, layer.memory, limit, 0,
            )  # fmt: skip
            self.explored += looked
            begin += stopped
            if stopped < batch.size:
                if store.hash.size >= MOST_STATES:
                    return store, limit, False
                store = grown(store, self.graph.count)
        return store, limit, True

    def _best(self, store: Store) -> int | None:
        """The best state in which all is done."""
        count = int(store.length[0])
        full = np.zeros(store.bits.shape[1], dtype=np.uint64)
        for task in range(self.graph.count):
            full[task >> 6] |= np.uint64(1) << np.uint64(task & 63)
        done = np.flatnonzero((store.bits[:count] == full).all(axis=1))
        return None if done.size == 0 else int(done[np.argmin(store.value[done])])

    def _placement(self, store: Store, state: int, proven: float | None) -> Placement:
        pieces: list[Piece] = []
        while store.parent[state] >= 0:
            before = int(store.parent[state])
            fresh = store.bits[state] ^ store.bits[before]
            numbers = [task for task in range(self.graph.count) if int(fresh[task >> 6]) >> (task & 63) & 1]
            pieces.append(Piece(int(store.kind[state]), tuple(sorted(self.order[number] for number in numbers))))
            state = before
        pieces.reverse()
        value = busiest(self.graph, pieces)
        method = f"ideals: {self.explored} pieces, {int(store.length[0])} states"
        return Placement(tuple(pieces), value, value if proven is None else proven, method, self.explored)


def grown(store: Store, tasks: int) -> Store:
    """The same store with twice the room."""
    count = int(store.length[0])
    fresh = new_store(tasks, 2 * store.hash.size)
    for name in ("bits", "hash", "layer", "value", "parent", "kind"):
        getattr(fresh, name)[:count] = getattr(store, name)[:count]
    fresh.length[0] = count
    index(fresh)
    return fresh
