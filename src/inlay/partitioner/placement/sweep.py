"""The kernel of the search over ideals: after a set of tasks closed under predecessors, every piece a device may run next.

Each piece is met once: the tasks that could follow are taken in turn, each either into the piece or, for good, not. A task that
stays out keeps out all that needs it, and what that makes the piece pay for certain cuts the branch. No torch, no objects:
arrays in, arrays out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from inlay.partitioner.placement.arrays import GraphArrays, KindArrays, Numbers
from inlay.partitioner.placement.compiled import compiled

BEFORE, OPEN, INSIDE, OUTSIDE = 0, 1, 2, 3
"""Of a task: placed before this piece, not decided, in the piece, or never in it."""


class Store(NamedTuple):
    """The states met: the tasks done as bits, with hash, layer (which devices are in use), best value and where it came from.

    `table` finds them by hash (open addressing, a power of two long, -1 = free); `length` holds their number.
    """

    bits: Numbers
    hash: Numbers
    layer: Numbers
    value: Numbers
    parent: Numbers
    kind: Numbers
    table: Numbers
    length: Numbers


class Scratch(NamedTuple):
    """Room for one enumeration; what it holds between two is of no use."""

    role: Numbers
    waiting: Numbers
    inside: Numbers
    outside: Numbers
    stack: Numbers
    barred: Numbers
    walk: Numbers
    levels: Numbers
    sums: Numbers
    hashes: Numbers
    bits: Numbers


def new_store(tasks: int, room: int) -> Store:
    """An empty store with room for so many states."""
    words, slots = (tasks + 63) // 64, 1 << max(4, (2 * room - 1).bit_length())
    return Store(
        bits=np.zeros((room, words), dtype=np.uint64),
        hash=np.zeros(room, dtype=np.uint64),
        layer=np.zeros(room, dtype=np.int32),
        value=np.zeros(room),
        parent=np.full(room, -1, dtype=np.int64),
        kind=np.full(room, -1, dtype=np.int32),
        table=np.full(slots, -1, dtype=np.int64),
        length=np.zeros(1, dtype=np.int64),
    )


def new_scratch(tasks: int, values: int) -> Scratch:
    """Room for the enumerations of a graph."""
    return Scratch(
        role=np.zeros(tasks, dtype=np.int8),
        waiting=np.zeros(tasks, dtype=np.int32),
        inside=np.zeros(values, dtype=np.int32),
        outside=np.zeros(values, dtype=np.int32),
        stack=np.zeros((tasks + 2) * (tasks + 2), dtype=np.int32),
        barred=np.zeros(tasks + 1, dtype=np.int32),
        walk=np.zeros(tasks + 1, dtype=np.int32),
        levels=np.zeros((4, tasks + 2), dtype=np.int64),
        sums=np.zeros((5, tasks + 2)),
        hashes=np.zeros(tasks + 2, dtype=np.uint64),
        bits=np.zeros((tasks + 63) // 64, dtype=np.uint64),
    )


@compiled
def slot(key: np.uint64, layer: int, mask: int) -> Any:
    """Where the search for a state begins in a table."""
    return np.int64((key ^ (np.uint64(layer) * np.uint64(0x9E3779B97F4A7C15))) & np.uint64(mask))


@compiled
def index(store: Store) -> None:
    """Enter every state into the empty table of its store."""
    mask = store.table.size - 1
    for state in range(store.length[0]):
        at = slot(store.hash[state], store.layer[state], mask)
        while store.table[at] >= 0:
            at = (at + 1) & mask
        store.table[at] = state


@compiled
def keep(store: Store, bits: Numbers, key: np.uint64, layer: int, value: float, parent: int, kind: int) -> int:
    """Note a way to a state where it is the best yet. Returns 1 where there is no room left, else 0."""
    mask = store.table.size - 1
    at = slot(key, layer, mask)
    while store.table[at] >= 0:
        found = store.table[at]
        if store.hash[found] == key and store.layer[found] == layer:
            same = True
            for word in range(bits.size):
                if store.bits[found, word] != bits[word]:
                    same = False
                    break
            if same:
                if value < store.value[found]:
                    store.value[found] = value
                    store.parent[found] = parent
                    store.kind[found] = kind
                return 0
        at = (at + 1) & mask
    fresh = store.length[0]
    if fresh >= store.hash.size:
        return 1
    store.length[0] = fresh + 1
    store.table[at] = fresh
    store.hash[fresh] = key
    store.layer[fresh] = layer
    store.value[fresh] = value
    store.parent[fresh] = parent
    store.kind[fresh] = kind
    for word in range(bits.size):
        store.bits[fresh, word] = bits[word]
    return 0


@compiled
def bar(graph: GraphArrays, costs: KindArrays, scratch: Scratch, task: int, depth: int, weight: Numbers, top: int) -> int:
    """Keep a task and all that needs it out of the piece; what that makes the piece pay is added at this depth."""
    scratch.walk[0] = task
    scratch.role[task] = OUTSIDE
    length = 1
    while length > 0:
        length -= 1
        now = scratch.walk[length]
        scratch.barred[top] = now
        top += 1
        scratch.sums[4, depth] -= weight[now]
        for at in range(graph.made_at[now], graph.made_at[now + 1]):
            value = graph.made[at]
            if scratch.inside[value] > 0:
                scratch.sums[0, depth] += costs.receive[value]
        for at in range(graph.read_at[now], graph.read_at[now + 1]):
            value = graph.read[at]
            scratch.outside[value] += 1
            if scratch.outside[value] == 1 and scratch.role[graph.producer[value]] == INSIDE:
                scratch.sums[0, depth] += costs.send[value]
        for at in range(graph.after_at[now], graph.after_at[now + 1]):
            other = graph.after[at]
            if scratch.role[other] == OPEN:
                scratch.role[other] = OUTSIDE
                scratch.walk[length] = other
                length += 1
    return top


@compiled
def unbar(graph: GraphArrays, scratch: Scratch, top: int, until: int) -> int:
    """Take back what was kept out since."""
    while top > until:
        top -= 1
        now = scratch.barred[top]
        scratch.role[now] = OPEN
        for at in range(graph.read_at[now], graph.read_at[now + 1]):
            scratch.outside[graph.read[at]] -= 1
    return top


@compiled
def include(graph: GraphArrays, costs: KindArrays, scratch: Scratch, task: int, depth: int, weight: Numbers) -> None:
    """Take a task into the piece; the sums of the next depth are those with it."""
    sums = scratch.sums
    certain, load = sums[0, depth] + costs.seconds[task], sums[1, depth] + costs.seconds[task]
    scratch.role[task] = INSIDE
    for at in range(graph.made_at[task], graph.made_at[task + 1]):
        value = graph.made[at]
        if scratch.outside[value] > 0:
            certain += costs.send[value]
        if scratch.inside[value] < graph.readers[value]:
            load += costs.send[value]
        if scratch.inside[value] > 0:
            load -= costs.receive[value]
    for at in range(graph.read_at[task], graph.read_at[task + 1]):
        value = graph.read[at]
        scratch.inside[value] += 1
        role = scratch.role[graph.producer[value]]
        if role == INSIDE:
            if scratch.inside[value] == graph.readers[value]:
                load -= costs.send[value]
        elif scratch.inside[value] == 1:
            load += costs.receive[value]
            if role != OPEN:
                certain += costs.receive[value]
    sums[0, depth + 1], sums[1, depth + 1] = certain, load
    sums[2, depth + 1] = sums[2, depth] + costs.memory[task]
    sums[3, depth + 1] = sums[3, depth] + weight[task]
    sums[4, depth + 1] = sums[4, depth]
    scratch.hashes[depth + 1] = scratch.hashes[depth] ^ graph.salt[task]
    scratch.bits[task >> 6] |= np.uint64(1) << np.uint64(task & 63)
    for at in range(graph.after_at[task], graph.after_at[task + 1]):
        scratch.waiting[graph.after[at]] -= 1


@compiled
def leave(graph: GraphArrays, scratch: Scratch, task: int) -> None:
    """Take a task out of the piece again."""
    scratch.role[task] = OPEN
    for at in range(graph.read_at[task], graph.read_at[task + 1]):
        scratch.inside[graph.read[at]] -= 1
    scratch.bits[task >> 6] ^= np.uint64(1) << np.uint64(task & 63)
    for at in range(graph.after_at[task], graph.after_at[task + 1]):
        scratch.waiting[graph.after[at]] += 1


@compiled
def enter(graph: GraphArrays, scratch: Scratch, store: Store, state: int, weight: Numbers) -> int:
    """Begin at a state: nothing in the piece, what may come first on the stack. Returns how many tasks are done."""
    done = 0
    scratch.inside[:] = 0
    scratch.outside[:] = 0
    scratch.bits[:] = store.bits[state]
    reach = 0.0
    for task in range(scratch.role.size):
        scratch.waiting[task] = graph.before[task]
    for task in range(scratch.role.size):
        if scratch.bits[task >> 6] >> np.uint64(task & 63) & np.uint64(1):
            scratch.role[task] = BEFORE
            done += 1
            for at in range(graph.read_at[task], graph.read_at[task + 1]):
                scratch.outside[graph.read[at]] += 1
            for at in range(graph.after_at[task], graph.after_at[task + 1]):
                scratch.waiting[graph.after[at]] -= 1
        else:
            scratch.role[task] = OPEN
            reach += weight[task]
    top = 0
    for task in range(scratch.role.size):
        if scratch.role[task] == OPEN and scratch.waiting[task] == 0:
            scratch.stack[top] = task
            top += 1
    scratch.levels[0, 0], scratch.levels[1, 0], scratch.levels[2, 0] = 0, top, 0
    scratch.sums[:, 0] = 0.0
    scratch.sums[4, 0] = reach
    scratch.hashes[0] = store.hash[state]
    return done


@compiled
def descend(graph: GraphArrays, scratch: Scratch, task: int, depth: int) -> None:
    """The tasks that may follow one just taken: those it has made ready, then those behind it in its own list."""
    levels = scratch.levels
    start = levels[1, depth]
    top = start
    for at in range(graph.after_at[task], graph.after_at[task + 1]):
        other = graph.after[at]
        if scratch.waiting[other] == 0 and scratch.role[other] == OPEN:
            scratch.stack[top] = other
            top += 1
    for at in range(levels[0, depth] + 1, levels[1, depth]):
        scratch.stack[top] = scratch.stack[at]
        top += 1
    levels[0, depth + 1], levels[1, depth + 1] = start, top


@compiled
def expand(
    graph: GraphArrays, costs: KindArrays, scratch: Scratch, store: Store, state: int, layer: int, kind: int,
    weight: Numbers, spare: float, spare_memory: float, limit: float,
) -> tuple[float, int, int]:  # fmt: skip
    """All pieces that a device of one kind may run after a state, with a load below `limit`, noted in the layer they lead to.

    What is left over must weigh at most `spare` and need at most `spare_memory`. Returns the limit (lowered where all was
    placed), the pieces looked at, and 1 where the store was full.
    """
    tasks, levels, sums = scratch.role.size, scratch.levels, scratch.sums
    done = enter(graph, scratch, store, state, weight)
    need = sums[4, 0] - spare
    memory_left = 0.0
    for task in range(tasks):
        if scratch.role[task] == OPEN:
            memory_left += costs.memory[task]
    memory_need = memory_left - spare_memory
    slack = 1e-9 * max(abs(sums[4, 0]), 1.0)
    depth, top, looked, before = 0, 0, 0, store.value[state]
    while True:
        at = levels[0, depth]
        if at >= levels[1, depth]:
            top = unbar(graph, scratch, top, levels[2, depth])
            if depth == 0:
                return limit, looked, 0
            depth -= 1
            task = scratch.stack[levels[0, depth]]
            leave(graph, scratch, task)
        else:
            task = scratch.stack[at]
            include(graph, costs, scratch, task, depth, weight)
            looked += 1
            if sums[0, depth + 1] < limit and sums[2, depth + 1] <= costs.capacity[0]:
                load = sums[1, depth + 1]
                if load < limit and sums[3, depth + 1] >= need - slack and sums[2, depth + 1] >= memory_need * (1.0 - 1e-12):
                    value = max(before, load)
                    if keep(store, scratch.bits, scratch.hashes[depth + 1], layer, value, state, kind) == 1:
                        return limit, looked, 1
                    if done + depth + 1 == tasks:
                        limit = min(limit, value)
                descend(graph, scratch, task, depth)
                depth += 1
                levels[2, depth] = top
                continue
            leave(graph, scratch, task)
        top = bar(graph, costs, scratch, task, depth, weight, top)
        levels[0, depth] += 1
        if sums[0, depth] >= limit or sums[4, depth] < need - slack:
            levels[0, depth] = levels[1, depth]


@compiled
def sweep(
    graph: GraphArrays, costs: KindArrays, scratch: Scratch, store: Store, states: Numbers, layer: int, kind: int,
    weight: Numbers, spare: float, spare_memory: float, limit: float, begin: int,
) -> tuple[float, int, int]:  # fmt: skip
    """`expand` for states in order from number `begin` on. Returns the limit, the pieces looked at, and where it stopped."""
    looked = 0
    for number in range(begin, states.size):
        state = states[number]
        if store.value[state] < limit:
            limit, more, full = expand(
                graph, costs, scratch, store, state, layer, kind, weight, spare * limit, spare_memory, limit
            )
            looked += more
            if full:
                return limit, looked, number
    return limit, looked, states.size
