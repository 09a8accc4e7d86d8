"""The kernels of the search for latency: from an ideal, every call of a device that holds a task of the spine, and every
stretch of tasks that hosts run side by side until the next task of the spine.

Such calls and stretches wait for each other, so that their seconds add up. See `sweep` for how pieces are met once each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inlay.partitioner.placement.arrays import GraphArrays, KindArrays, Numbers
from inlay.partitioner.placement.compiled import compiled
from inlay.partitioner.placement.sweep import (
    BEFORE,
    OUTSIDE,
    Scratch,
    Store,
    bar,
    descend,
    enter,
    include,
    keep,
    leave,
    unbar,
)


class SpineArrays(NamedTuple):
    """`rank` is the number of a task on the spine, -1 for others; `task` the reverse; `segment` how many of the spine come
    before a task; `ahead[left, p]` what is still to come at least once p of the spine are done and `left` devices are left;
    `resumed` the same where a host has just run the last of these, `within` from inside of a call.

    Of a call within a segment, `seconds` are by task with all that it surely moves, `send` and `receive` by value what may
    come to that, and `leave` what it still takes at least after a task; where that is infinite, no such call is thought of.
    Where `apart`, calls need no task of the spine.
    """

    rank: Numbers
    task: Numbers
    segment: Numbers
    ahead: Numbers
    resumed: Numbers
    within: Numbers
    seconds: Numbers
    send: Numbers
    receive: Numbers
    leave: Numbers
    apart: bool


@compiled
def spine_done(scratch: Scratch, spine: SpineArrays) -> int:
    """How many tasks of the spine a state has done."""
    done = 0
    while done < spine.task.size and scratch.role[spine.task[done]] == BEFORE:
        done += 1
    return done


@compiled
def expand_calls(
    graph: GraphArrays, costs: KindArrays, scratch: Scratch, store: Store, spine: SpineArrays, state: int, layer: int,
    left: int, kind: int, none: Numbers, limit: float,
) -> tuple[float, int, int]:  # fmt: skip
    """Every call after a state, noted in a layer with `left` devices left. Returns limit, calls looked at, and 1 if full."""
    tasks, levels, sums = scratch.role.size, scratch.levels, scratch.sums
    done = enter(graph, scratch, store, state, none)
    first = spine_done(scratch, spine)
    if first == spine.task.size and not spine.apart:
        return limit, 0, 0
    before, depth, top, looked = store.value[state], 0, 0, 0
    levels[3, 0] = first
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
            include(graph, costs, scratch, task, depth, none)
            looked += 1
            reached = levels[3, depth] + (1 if spine.rank[task] >= 0 else 0)
            least = before + sums[0, depth + 1] + spine.within[left, reached]
            if least < limit and sums[2, depth + 1] <= costs.capacity[0]:
                value = before + sums[1, depth + 1]
                if (reached > first or spine.apart) and value + spine.ahead[left, reached] < limit:
                    if keep(store, scratch.bits, scratch.hashes[depth + 1], layer, value, state, kind) == 1:
                        return limit, looked, 1
                    if done + depth + 1 == tasks:
                        limit = min(limit, value)
                descend(graph, scratch, task, depth)
                depth += 1
                levels[2, depth], levels[3, depth] = top, reached
                continue
            leave(graph, scratch, task)
        top = bar(graph, costs, scratch, task, depth, none, top)
        levels[0, depth] += 1
        reached = levels[3, depth]
        least = before + sums[0, depth] + spine.within[left, reached]
        if reached < spine.task.size and scratch.role[spine.task[reached]] == OUTSIDE:
            least = before + sums[0, depth] + spine.ahead[left, reached]
            if reached == first and not spine.apart:
                least = np.inf
        if least >= limit:
            levels[0, depth] = levels[1, depth]


@compiled
def reach_within(
    graph: GraphArrays, costs: KindArrays, spine: SpineArrays, scratch: Scratch, host: Numbers, finish: Numbers, task: int
) -> None:
    """When a task of a stretch ends at least: row 0 with hosts alone, row 1 on a host while others may be in calls, row 2 in
    a call, as far as the call has then come."""
    alone, beside, called = 0.0, 0.0, 0.0
    for at in range(graph.read_at[task], graph.read_at[task + 1]):
        value = graph.read[at]
        other = graph.producer[value]
        if scratch.role[other] == BEFORE:
            called = max(called, spine.receive[value])
            continue
        alone = max(alone, finish[0, other])
        outside = min(finish[1, other], finish[2, other] + spine.send[value])
        beside = max(beside, outside)
        together = outside + spine.receive[value]
        if costs.memory[task] + costs.memory[other] <= costs.capacity[0]:
            together = min(together, finish[2, other])
        called = max(called, together)
    finish[0, task] = alone + host[task]
    finish[1, task] = beside + host[task]
    finish[2, task] = called + spine.seconds[task]


@compiled
def expand_hosts(
    graph: GraphArrays, costs: KindArrays, host: Numbers, scratch: Scratch, store: Store, spine: SpineArrays, finish: Numbers,
    state: int, plain: int, waiting: int, is_waiting: bool, left: int, kind: int, none: Numbers, limit: float,
) -> tuple[float, int, int]:  # fmt: skip
    """The next task of the spine on a host where all before it is done, and every stretch of hosts before it.

    A stretch takes its longest path or, where calls are `apart` no pieces of their own, what they could make of it at least.
    After a stretch (layer `waiting`) the spine goes on. Returns limit, stretches looked at, and 1 if the store is full.
    """
    tasks, levels = scratch.role.size, scratch.levels
    done = enter(graph, scratch, store, state, none)
    first, before = spine_done(scratch, spine), store.value[state]
    looked = 0
    if first < spine.task.size and scratch.waiting[spine.task[first]] == 0:
        task = spine.task[first]
        value = before + host[task]
        if value + spine.resumed[left, first + 1] < limit:
            scratch.bits[task >> 6] |= np.uint64(1) << np.uint64(task & 63)
            if keep(store, scratch.bits, scratch.hashes[0] ^ graph.salt[task], plain, value, state, kind) == 1:
                return limit, looked, 1
            if done + 1 == tasks:
                limit = min(limit, value)
        return limit, looked, 0
    if is_waiting:
        return limit, looked, 0
    depth = 0
    scratch.sums[0, 0], scratch.sums[1, 0] = 0.0, 0.0
    while True:
        at = levels[0, depth]
        if at >= levels[1, depth]:
            if depth == 0:
                return limit, looked, 0
            depth -= 1
            leave(graph, scratch, scratch.stack[levels[0, depth]])
            levels[0, depth] += 1
            continue
        task = scratch.stack[at]
        if spine.segment[task] != first or spine.rank[task] >= 0:
            levels[0, depth] += 1
            continue
        reach_within(graph, costs, spine, scratch, host, finish, task)
        path = max(scratch.sums[0, depth], finish[0, task])
        short = max(scratch.sums[1, depth], min(finish[1, task], finish[2, task] + spine.leave[task]))
        value = before + (path if spine.apart else min(path, short))
        looked += 1
        if value + spine.ahead[left, first] >= limit:
            levels[0, depth] += 1
            continue
        include(graph, costs, scratch, task, depth, none)
        scratch.sums[0, depth + 1], scratch.sums[1, depth + 1] = path, short
        if keep(store, scratch.bits, scratch.hashes[depth + 1], waiting, value, state, kind) == 1:
            return limit, looked, 1
        if done + depth + 1 == tasks:
            limit = min(limit, value)
        descend(graph, scratch, task, depth)
        depth += 1


@compiled
def advance_calls(
    graph: GraphArrays, costs: KindArrays, scratch: Scratch, store: Store, spine: SpineArrays, states: Numbers, layer: int,
    left: int, kind: int, none: Numbers, limit: float,
) -> tuple[float, int, int]:  # fmt: skip
    """`expand_calls` for states in order. Returns the limit, the calls looked at, and how many states were done."""
    looked = 0
    for number in range(states.size):
        if store.value[states[number]] < limit:
            limit, more, full = expand_calls(
                graph, costs, scratch, store, spine, states[number], layer, left, kind, none, limit
            )
            looked += more
            if full:
                return limit, looked, number
    return limit, looked, states.size
