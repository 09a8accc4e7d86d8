"""Placements of graphs too large for ideals: runs of one order of the tasks, one for each device, the best order of devices
sought by exchanging them. The bound is the linear programme of `relaxed`; nothing else is proven.
"""

from __future__ import annotations

import time

import numpy as np

from inlay.partitioner.placement.arrays import Numbers, graph_arrays
from inlay.partitioner.placement.compiled import compiled
from inlay.partitioner.placement.graph import INFINITE, Piece, Placement, TaskGraph, busiest
from inlay.partitioner.placement.relaxed import shares

HALVINGS = 40
SLACK = 1e-9


@compiled
def fill(
    after_at: Numbers, after: Numbers, back_at: Numbers, back: Numbers, made_at: Numbers, made: Numbers, read_at: Numbers,
    read: Numbers, producer: Numbers, last_reader: Numbers, seconds: Numbers, memory: Numbers, send: Numbers,
    receive: Numbers, capacity: Numbers, devices: Numbers, limit: float, ends: Numbers, stamp: Numbers, mark: int,
) -> int:  # fmt: skip
    """Give each device in order the longest run with a load of at most `limit`; where each ends. Returns the tasks placed.

    Row k of `seconds`, `memory`, `send` and `receive` belongs to kind k; `devices` names the kind of each. A value counts
    as sent where its last reader lies behind the run. `stamp` says which runs have received a value already.
    """
    tasks = seconds.shape[1]
    first = 0
    for at in range(devices.size):
        kind = devices[at]
        load, size, end, best = 0.0, 0.0, first, first
        open_sends = 0.0
        mark += 1
        while end < tasks:
            task = end
            load += seconds[kind, task]
            size += memory[kind, task]
            for item in range(read_at[task], read_at[task + 1]):
                value = read[item]
                if producer[value] < first:
                    if stamp[value] != mark:
                        stamp[value] = mark
                        load += receive[kind, value]
                elif last_reader[value] == task:
                    open_sends -= send[kind, value]
            for item in range(made_at[task], made_at[task + 1]):
                open_sends += send[kind, made[item]]
            if load > limit or size > capacity[kind]:
                break
            end += 1
            if load + open_sends <= limit:
                best = end
        first = best
        ends[at] = first
        if first == tasks:
            for rest in range(at + 1, devices.size):
                ends[rest] = tasks
            break
    return first


def run_placement(graph: TaskGraph, *, seconds: float = 60.0, seed: int = 0) -> Placement | None:
    """Runs of the graph's own order, for the load of the busiest device. None where no order of devices that was tried fits."""
    return _Runs(graph, seconds, seed).run()


class _Runs:
    def __init__(self, graph: TaskGraph, seconds: float, seed: int) -> None:
        self.graph, self.until = graph, time.monotonic() + seconds
        self.random = np.random.default_rng(seed)
        self.order = graph.order
        held = graph_arrays(graph, self.order)
        number = {task: at for at, task in enumerate(self.order)}
        last = [max(number[item] for item in value.consumers) for value in graph.values]
        kinds, order = graph.kinds, list(self.order)
        self.fixed = (
            held.after_at, held.after, held.back_at, held.back, held.made_at, held.made, held.read_at, held.read,
            held.producer, np.array(last, dtype=np.int32),
            np.array([kind.seconds for kind in kinds])[:, order], np.array([kind.memory for kind in kinds])[:, order],
            np.array([kind.send for kind in kinds]), np.array([kind.receive for kind in kinds]),
            np.array([INFINITE if kind.capacity is None else kind.capacity for kind in kinds]),
        )  # fmt: skip
        self.devices = np.array(
            [at for at, kind in enumerate(kinds) for _ in range(graph.count if kind.count is None else kind.count)],
            dtype=np.int64,
        )
        self.ends, self.stamp, self.mark = np.zeros(self.devices.size, dtype=np.int64), np.zeros(len(graph.values), np.int64), 1

    def run(self) -> Placement | None:
        graph = self.graph
        bounded = shares(graph, [kind.count for kind in graph.kinds])
        if bounded is None:
            return None
        bound = 0.0 if bounded.spare in (0.0, INFINITE) else float(bounded.weights.sum() / bounded.spare)
        devices, tried = self.random.permutation(self.devices), 1
        best = self._least(devices, bound, INFINITE)
        while time.monotonic() < self.until and best > bound * (1 + SLACK):
            one, other = self.random.integers(0, devices.size, 2)
            moved = devices.copy()
            if self.random.random() < 0.5:
                moved[[one, other]] = moved[[other, one]]
            else:
                moved = np.insert(np.delete(moved, one), other, devices[one])
            tried += 1
            found = self._least(moved, bound, best)
            if found <= best:
                devices, best = moved, found
        if best == INFINITE:
            return None
        pieces = self._pieces(devices, best)
        value = busiest(graph, pieces)
        method = f"runs of one order, {tried} orders of devices tried; bound by a linear programme"
        return Placement(pieces, value, min(bound, value), method, tried)

    def _fits(self, devices: Numbers, limit: float) -> bool:
        self.mark += self.devices.size + 1
        return bool(fill(*self.fixed, devices, limit, self.ends, self.stamp, self.mark) == self.graph.count)

    def _least(self, devices: Numbers, low: float, high: float) -> float:
        """The least limit under which an order of devices places all, if it is below `high`."""
        if high == INFINITE:
            high = max(low, 1e-9)
            while not self._fits(devices, high):
                high *= 2.0
                if high > 1e30:
                    return INFINITE
        elif not self._fits(devices, high * (1 - SLACK)):
            return INFINITE
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self._fits(devices, middle):
                high = middle
            else:
                low = middle
        return high

    def _pieces(self, devices: Numbers, limit: float) -> tuple[Piece, ...]:
        self._fits(devices, limit * (1 + SLACK))
        pieces, first = [], 0
        for kind, end in zip(devices, self.ends, strict=True):
            if end > first:
                pieces.append(Piece(int(kind), tuple(sorted(self.order[first:end]))))
            first = int(end)
        return tuple(pieces)
