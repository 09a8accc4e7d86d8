"""The placement with the least latency of one sample, where one kind of device takes calls and hosts are as many as needed.

Dynamic programming over ideals along the spine (`serial`): calls that hold a task of the spine, and hosts between them. What
calls could do beside the spine is bounded from below; where the bound meets the plan, the plan is the optimum.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np

from inlay.partitioner.placement.arrays import Numbers, graph_arrays, kind_arrays
from inlay.partitioner.placement.beside import beside
from inlay.partitioner.placement.calls import SpineArrays, advance_calls, expand_hosts
from inlay.partitioner.placement.contract import contract, without_leaves
from inlay.partitioner.placement.graph import INFINITE, Piece, Placement, TaskGraph, makespan
from inlay.partitioner.placement.serial import Spine, longest
from inlay.partitioner.placement.sweep import Store, keep, new_scratch, new_store
from inlay.partitioner.placement.throughput import MOST_STATES, ROOM, grown

STEPS = (1.003, 1.02, 1.06, 1.1, 1.2, 1.4, 1.7, 2.0, 3.0, 5.0, 10.0)
SERIAL = (1.0 + 1e-9, 1.002)
"""Limits beside the bound under which calls and stretches one after the other are tried first."""
WIDENING = (1.005, 1.02, 1.04, 1.07, 1.12, 1.2, 1.4, 2.0, INFINITE)
WIDTH = 300
NEAR = 1e-9
MOST_BESIDE = 2
"""So many calls at most are looked at within one segment."""
BESIDE_SECONDS = 6.0
CALL, HOST = 0, 1


@dataclass(frozen=True)
class Found:
    """The last state of the best way, what it costs, and whether nothing was left out."""

    store: Store
    state: int | None
    value: float
    complete: bool


@dataclass(frozen=True)
class Ahead:
    """By devices left and tasks of the spine done, what is still to come at least: after a call, after the last of these on a
    host, and from inside of a call."""

    ahead: Numbers
    resumed: Numbers
    within: Numbers


class Chain:
    """The search along the spine of one graph."""

    def __init__(self, graph: TaskGraph, *, until: float) -> None:
        self.graph, self.until = graph, until
        self.spine = Spine(graph)
        self.order = graph.order
        self.arrays = graph_arrays(graph, self.order)
        self.call = kind_arrays(graph, self.order, CALL)
        self.host = kind_arrays(graph, self.order, HOST).seconds
        self.quickest = [min(kind.seconds[task] for kind in graph.kinds) for task in range(graph.count)]
        self.devices = min(graph.kinds[CALL].count or 0, graph.count)
        self.scratch = new_scratch(graph.count, len(graph.values))
        self.finish = np.zeros((3, graph.count))
        self.number = {task: at for at, task in enumerate(self.order)}
        self.on_spine = [self.number[task] for task in self.spine.tasks]
        self.width: int | None = None
        self.beside: dict[tuple[int, int], tuple[float, tuple[Piece, ...]]] = {}
        self.none = np.zeros(graph.count)
        self.explored = 0
        self.apart = self.spine.apart(graph.kinds[CALL])
        self.ahead = self._ahead()

    def _ahead(self) -> Ahead:
        """What the rest of the spine takes at least, by devices left and tasks of the spine done."""
        spine, call, host = self.spine, self.graph.kinds[CALL], self.graph.kinds[HOST]
        count = len(spine.tasks)
        capacity = INFINITE if call.capacity is None else call.capacity
        receive = [spine.least_receive(number, call) for number in range(count)]
        send = [spine.least_send(number, call) for number in range(count)]
        stretch = [spine.least_stretch(number, call, host, self.apart) for number in range(count + 1)]
        held = [(spine.tasks[number], *spine.segments[number]) for number in range(count)]
        seconds = [sum(call.seconds[task] for task in tasks) for tasks in held]
        memory = [sum(call.memory[task] for task in tasks) for tasks in held]
        shape = (self.devices + 1, count + 1)
        found = Ahead(np.zeros(shape), np.zeros(shape), np.zeros(shape))
        found.resumed[:, count] = stretch[count]
        for left in range(self.devices + 1):
            for first in range(count - 1, -1, -1):
                task = spine.tasks[first]
                called, load, size = INFINITE, receive[first] + call.seconds[task], call.memory[task]
                for end in range(first + 1, count + 1 if left else first + 1):
                    if size > capacity:
                        break
                    last = send[end - 1] if end < count else 0.0
                    called = min(called, load + last + found.ahead[left - 1, end])
                    if end < count:
                        load, size = load + seconds[end], size + memory[end]
                alone = host.seconds[task] + found.resumed[left, first + 1]
                found.ahead[left, first] = min(called, alone)
                found.resumed[left, first] = min(called, stretch[first] + alone)
            for first in range(count - 1, -1, -1):
                inside = call.seconds[spine.tasks[first]] + found.within[left, first + 1]
                found.within[left, first] = min(found.ahead[left, first], inside)
        return found

    def arrays_of_spine(self, *, relaxed: bool) -> SpineArrays:
        """The spine for the kernels; `relaxed` lets calls within a segment cost what they must at least."""
        number = self.number
        rank = np.full(self.graph.count, -1, dtype=np.int32)
        for at, task in enumerate(self.spine.tasks):
            rank[number[task]] = at
        apart = self.apart
        leave = apart.leave if relaxed else [INFINITE] * self.graph.count
        return SpineArrays(
            rank=rank,
            task=np.array([number[task] for task in self.spine.tasks], dtype=np.int32),
            segment=np.array([self.spine.place[task] for task in self.order], dtype=np.int32),
            ahead=self.ahead.ahead,
            resumed=self.ahead.resumed,
            within=self.ahead.within,
            seconds=np.array([apart.seconds[task] for task in self.order]),
            send=np.array(apart.send),
            receive=np.array(apart.receive),
            leave=np.array([leave[task] for task in self.order]),
            apart=not relaxed,
        )

    def search(self, limit: float, *, relaxed: bool, width: int | None = None) -> Found:
        """The cheapest way through below a limit; with a `width`, calls follow the most promising states alone."""
        self.width = width
        spine = self.arrays_of_spine(relaxed=relaxed)
        store = new_store(self.graph.count, ROOM)
        store.length[0] = 1
        store.table[0] = 0
        for used in range(self.devices + 1):
            store, limit, complete = self._hosts(store, spine, used, limit)
            if complete and used < self.devices:
                store, limit, complete = self._calls(store, spine, used, limit)
            if not complete:
                break
        state = self._last(store)
        return Found(store, state, INFINITE if state is None else float(store.value[state]), complete)

    def _hosts(self, store: Store, spine: SpineArrays, used: int, limit: float) -> tuple[Store, float, bool]:
        """Everything that hosts can do while so many devices are used, states with the fewest tasks done first."""
        plain, waiting = 2 * used, 2 * used + 1
        heap: list[tuple[int, int]] = []
        seen = 0
        while True:
            fresh = np.arange(seen, int(store.length[0]))
            seen = int(store.length[0])
            for state in fresh[(store.layer[fresh] // 2) == used]:
                heapq.heappush(heap, (int(np.bitwise_count(store.bits[state]).sum()), int(state)))
            if not heap:
                return store, limit, True
            if time.monotonic() > self.until:
                return store, limit, False
            _, state = heapq.heappop(heap)
            if store.value[state] >= limit:
                continue
            is_waiting = int(store.layer[state]) == waiting
            store = self._beside(store, state, used, limit)
            full = 1
            while full:
                limit, looked, full = expand_hosts(
                    self.arrays, self.call, self.host, self.scratch, store, spine, self.finish, state, plain, waiting,
                    is_waiting, self.devices - used, HOST, self.none, limit,
                )  # fmt: skip
                self.explored += looked
                if full:
                    if store.hash.size >= MOST_STATES:
                        return store, limit, False
                    store = grown(store, self.graph.count)

    def prepare(self, until: float) -> None:
        """Find ways to run whole segments with one call or two beside hosts, where that could pay."""
        host = self.graph.kinds[HOST]
        for number, tasks in enumerate(self.spine.segments):
            alone = longest(self.graph, host.seconds, tasks)
            least = self.spine.least_stretch(number, self.graph.kinds[CALL], host, self.apart)
            for calls in range(1, min(MOST_BESIDE, self.devices) + 1):
                left = until - time.monotonic()
                if alone <= least * (1 + NEAR) or left < 1.0:
                    break
                found = beside(self.graph, tasks, calls, seconds=min(BESIDE_SECONDS, left))
                if found is not None and found[0] < alone * (1 - NEAR):
                    self.beside[number, calls] = found
                    alone = found[0]

    def _beside(self, store: Store, state: int, used: int, limit: float) -> Store:
        """From a state in which nothing of a segment is done: the segment with calls beside hosts, as prepared."""
        done = self._spine_done(store.bits[state]) if self.beside else 0
        count = int(np.bitwise_count(store.bits[state]).sum()) if self.beside else -1
        before = sum(map(len, self.spine.segments[:done])) + done
        for calls in range(1, MOST_BESIDE + 1):
            if count != before or (done, calls) not in self.beside or used + calls > self.devices:
                continue
            value = float(store.value[state]) + self.beside[done, calls][0]
            if value + self.ahead.ahead[self.devices - used - calls, done] >= limit:
                continue
            bits, key = store.bits[state].copy(), store.hash[state]
            for task in self.spine.segments[done]:
                number = self.number[task]
                bits[number >> 6] |= np.uint64(1) << np.uint64(number & 63)
                key ^= self.arrays.salt[number]
            while keep(store, bits, key, 2 * (used + calls), value, state, HOST + calls):
                store = grown(store, self.graph.count)
        return store

    def _calls(self, store: Store, spine: SpineArrays, used: int, limit: float) -> tuple[Store, float, bool]:
        count = int(store.length[0])
        states = np.flatnonzero((store.layer[:count] // 2) == used)
        if self.width is not None and states.size > self.width:
            done = np.array([self._spine_done(store.bits[state]) for state in states])
            least = store.value[states] + self.ahead.ahead[self.devices - used, done]
            states = states[np.argsort(least, kind="stable")[: self.width]]
        begin = 0
        while begin < states.size:
            if time.monotonic() > self.until:
                return store, limit, False
            batch = states[begin : begin + 64]
            limit, looked, stopped = advance_calls(
                self.arrays, self.call, self.scratch, store, spine, batch, 2 * (used + 1), self.devices - used - 1, CALL,
                self.none, limit,
            )  # fmt: skip
            self.explored += looked
            begin += stopped
            if stopped < batch.size:
                if store.hash.size >= MOST_STATES:
                    return store, limit, False
                store = grown(store, self.graph.count)
        return store, limit, True

    def _spine_done(self, bits: Numbers) -> int:
        """How many tasks of the spine a state has done."""
        done = 0
        while done < len(self.on_spine) and int(bits[self.on_spine[done] >> 6]) >> (self.on_spine[done] & 63) & 1:
            done += 1
        return done

    def _last(self, store: Store) -> int | None:
        count = int(store.length[0])
        full = np.zeros(store.bits.shape[1], dtype=np.uint64)
        for task in range(self.graph.count):
            full[task >> 6] |= np.uint64(1) << np.uint64(task & 63)
        done = np.flatnonzero((store.bits[:count] == full).all(axis=1))
        return None if done.size == 0 else int(done[np.argmin(store.value[done])])

    def pieces(self, store: Store, state: int) -> tuple[Piece, ...]:
        """The calls and stretches of a way, in order."""
        found: list[Piece] = []
        while store.parent[state] >= 0:
            before = int(store.parent[state])
            fresh = store.bits[state] ^ store.bits[before]
            numbers = [task for task in range(self.graph.count) if int(fresh[task >> 6]) >> (task & 63) & 1]
            tasks, kind = tuple(sorted(self.order[number] for number in numbers)), int(store.kind[state])
            if kind > HOST:
                found += reversed(self.beside[self._spine_done(store.bits[before]), kind - HOST][1])
            else:
                found.append(Piece(kind, tasks))
            state = before
        return tuple(reversed(found))


def fastest_sample(graph: TaskGraph, *, seconds: float = 300.0) -> Placement | None:
    """The placement with the least latency, kinds being one of devices that take one call each, and hosts without number.

    None where a task fits nowhere. The bound and the placement each get half of the time; where they do not meet, the gap
    is told. Tasks at the end that take no time (`without_leaves`) are bounded as if they took no memory either.
    """
    begun = time.monotonic()
    small = without_leaves(contract(graph))
    bounding = _Bounding(small.free, begun + seconds / 2)
    bounding.run()
    finding = _Finding(small.held.graph, begun + seconds)
    pieces = finding.run(bounding.proven)
    if pieces is None:
        return None
    held = small.held.expand(pieces)
    value = makespan(graph, held)
    explored = bounding.explored + finding.explored
    method = f"ideals along a spine of {len(finding.chain.spine.tasks)}: {explored} calls and stretches"
    return Placement(held, value, min(bounding.proven, value), method, explored)


class _Bounding:
    """The highest limit under which nothing can be, calls within a segment being bounded from below."""

    def __init__(self, graph: TaskGraph, until: float) -> None:
        self.chain = Chain(graph, until=until)
        path = longest(graph, self.chain.quickest, range(graph.count))
        self.proven = max(float(self.chain.ahead.resumed[self.chain.devices, 0]), path)
        self.explored = 0

    def run(self) -> None:
        """Raise the limit until something is found, which is the bound, or the time ends."""
        base = self.proven
        for step in (*STEPS, INFINITE):
            found = self.chain.search(base * step, relaxed=True)
            self.explored = self.chain.explored
            if not found.complete:
                return
            if found.state is not None:
                self.proven = found.value
                return
            self.proven = base * step


class _Finding:
    """A placement: calls and stretches one after the other, then with whole segments in which calls run beside hosts."""

    def __init__(self, graph: TaskGraph, until: float) -> None:
        self.chain = Chain(graph, until=until)
        self.until, self.explored = until, 0
        self.best: tuple[Piece, ...] | None = None
        if INFINITE not in graph.kinds[HOST].seconds:
            self.best = (Piece(HOST, tuple(range(graph.count))),)
        self.value = INFINITE if self.best is None else makespan(graph, self.best)

    def run(self, proven: float) -> tuple[Piece, ...] | None:
        """The best that is found in the time; None where not even hosts alone can do it."""
        for more in SERIAL:
            if self._try(proven * more, None):
                return self.best
        self.chain.prepare(time.monotonic() + (self.until - time.monotonic()) / 2)
        for more in WIDENING:
            if self._try(min(proven * more, self.value), WIDTH) or proven * more > self.value:
                break
        self._try(self.value, None)
        return self.best

    def _try(self, limit: float, width: int | None) -> bool:
        """Search below a limit; whether the search is over."""
        if time.monotonic() > self.chain.until:
            return True
        found = self.chain.search(limit, relaxed=False, width=width)
        self.explored = self.chain.explored
        if found.state is None:
            return False
        pieces = self.chain.pieces(found.store, found.state)
        value = makespan(self.chain.graph, pieces)
        if value < self.value:
            self.best, self.value = pieces, value
        return True
