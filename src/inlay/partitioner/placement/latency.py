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
from inlay.partitioner.placement.calls import SpineArrays, advance_calls, expand_hosts
from inlay.partitioner.placement.contract import contract
from inlay.partitioner.placement.graph import INFINITE, Piece, Placement, TaskGraph, makespan
from inlay.partitioner.placement.serial import Spine, longest
from inlay.partitioner.placement.sweep import Store, new_scratch, new_store
from inlay.partitioner.placement.throughput import MOST_STATES, ROOM, grown

STEPS = (1.001, 1.003, 1.01, 1.02, 1.04, 1.07, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0)
CALL, HOST = 0, 1


@dataclass(frozen=True)
class Found:
    """The last state of the best way, what it costs, and whether nothing was left out."""

    store: Store
    state: int | None
    value: float
    complete: bool


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
        number = {task: at for at, task in enumerate(self.order)}
        self.on_spine = [number[task] for task in self.spine.tasks]
        self.width: int | None = None
        self.none = np.zeros(graph.count)
        self.explored = 0
        self.ahead, self.within = self._ahead()

    def _ahead(self) -> tuple[Numbers, Numbers]:
        """What the rest of the spine takes at least, by devices left and tasks of the spine done; from inside a call too."""
        spine, kind, count = self.spine, self.graph.kinds[CALL], len(self.spine.tasks)
        capacity = INFINITE if kind.capacity is None else kind.capacity
        receive = [spine.least_receive(number, kind) for number in range(count)]
        send = [spine.least_send(number, kind) for number in range(count)]
        held = [(spine.tasks[number], *spine.segments[number]) for number in range(count)]
        seconds = [sum(kind.seconds[task] for task in tasks) for tasks in held]
        memory = [sum(kind.memory[task] for task in tasks) for tasks in held]
        own = [kind.memory[task] for task in spine.tasks]
        ahead, within = np.zeros((self.devices + 1, count + 1)), np.zeros((self.devices + 1, count + 1))
        for left in range(self.devices + 1):
            for first in range(count - 1, -1, -1):
                best = self.graph.kinds[HOST].seconds[spine.tasks[first]] + ahead[left, first + 1]
                load, size = receive[first] + kind.seconds[spine.tasks[first]], own[first]
                for end in range(first + 1, count + 1 if left else first + 1):
                    if size > capacity:
                        break
                    last = send[end - 1] if end < count else 0.0
                    best = min(best, load + last + ahead[left - 1, end])
                    if end < count:
                        load, size = load + seconds[end], size + memory[end]
                ahead[left, first] = best
            within[left, count] = 0.0
            for first in range(count - 1, -1, -1):
                inside = kind.seconds[spine.tasks[first]] + within[left, first + 1]
                within[left, first] = min(ahead[left, first], inside)
        return ahead, within

    def arrays_of_spine(self, *, relaxed: bool) -> SpineArrays:
        """The spine for the kernels; `relaxed` lets calls within a segment cost what they must at least."""
        number = {task: at for at, task in enumerate(self.order)}
        rank = np.full(self.graph.count, -1, dtype=np.int32)
        for at, task in enumerate(self.spine.tasks):
            rank[number[task]] = at
        apart = self.spine.apart(self.graph.kinds[CALL])
        leave = apart.leave if relaxed else [INFINITE] * self.graph.count
        return SpineArrays(
            rank=rank,
            task=np.array([number[task] for task in self.spine.tasks], dtype=np.int32),
            segment=np.array([self.spine.place[task] for task in self.order], dtype=np.int32),
            ahead=self.ahead,
            within=self.within,
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

    def _calls(self, store: Store, spine: SpineArrays, used: int, limit: float) -> tuple[Store, float, bool]:
        count = int(store.length[0])
        states = np.flatnonzero((store.layer[:count] // 2) == used)
        if self.width is not None and states.size > self.width:
            done = np.array([self._spine_done(store.bits[state]) for state in states])
            least = store.value[states] + self.ahead[self.devices - used, done]
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
            found.append(Piece(int(store.kind[state]), tuple(sorted(self.order[number] for number in numbers))))
            state = before
        return tuple(reversed(found))


def fastest_sample(graph: TaskGraph, *, seconds: float = 300.0) -> Placement | None:
    """The placement with the least latency, kinds being one of devices that take one call each, and hosts without number."""
    until = time.monotonic() + seconds
    small = contract(graph)
    chain = Chain(small.graph, until=until)
    base = max(float(chain.ahead[chain.devices, 0]), longest(small.graph, chain.quickest, range(small.graph.count)))
    proven = base
    for step in (*STEPS, INFINITE):
        found = chain.search(base * step, relaxed=True)
        if found.state is not None or not found.complete:
            break
        proven = base * step
    if found.complete and found.state is not None:
        proven = found.value
    for more in (1.0 + 1e-9, 1.005, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, INFINITE):
        best = chain.search(proven * more, relaxed=False)
        if best.state is not None:
            break
    if best.state is None:
        return None
    pieces = chain.pieces(best.store, best.state)
    value = makespan(small.graph, pieces)
    method = f"ideals along a spine of {len(chain.spine.tasks)}: {chain.explored} calls and stretches"
    return Placement(small.expand(pieces), value, min(proven, value), method, chain.explored)
