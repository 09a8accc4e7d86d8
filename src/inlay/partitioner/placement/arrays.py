"""A TaskGraph as flat arrays for the kernels. Tasks are renumbered so that their numbers obey every edge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from inlay.partitioner.placement.graph import INFINITE, TaskGraph

Numbers = np.ndarray[Any, Any]


class GraphArrays(NamedTuple):
    """Rows of unequal length lie one behind the other: row i of `x` is x[x_at[i]:x_at[i + 1]].

    `after` are the successors of a task, `back` its predecessors, `before` their number, `made` the values that it
    makes, `read` those that it reads; by value `producer` and the number of `readers`.
    """

    after_at: Numbers
    after: Numbers
    back_at: Numbers
    back: Numbers
    before: Numbers
    made_at: Numbers
    made: Numbers
    read_at: Numbers
    read: Numbers
    producer: Numbers
    readers: Numbers
    salt: Numbers


class KindArrays(NamedTuple):
    """What one kind of device costs: by task seconds and bytes, by value sending and receiving, and its capacity alone."""

    seconds: Numbers
    memory: Numbers
    send: Numbers
    receive: Numbers
    capacity: Numbers


def graph_arrays(graph: TaskGraph, order: Sequence[int]) -> GraphArrays:
    """The arrays of a graph whose task order[i] gets the number i."""
    number = {task: at for at, task in enumerate(order)}
    after = [sorted(number[other] for other in graph.successors[task]) for task in order]
    made: list[list[int]] = [[] for _ in order]
    read: list[list[int]] = [[] for _ in order]
    for at, value in enumerate(graph.values):
        made[number[value.producer]].append(at)
        for consumer in value.consumers:
            read[number[consumer]].append(at)
    after_at, after_flat = _rows(after)
    back_at, back_flat = _rows([sorted(number[other] for other in graph.predecessors[task]) for task in order])
    made_at, made_flat = _rows(made)
    read_at, read_flat = _rows(read)
    random = np.random.default_rng(0)
    return GraphArrays(
        after_at=after_at,
        after=after_flat,
        back_at=back_at,
        back=back_flat,
        before=np.array([len(graph.predecessors[task]) for task in order], dtype=np.int32),
        made_at=made_at,
        made=made_flat,
        read_at=read_at,
        read=read_flat,
        producer=np.array([number[value.producer] for value in graph.values], dtype=np.int32),
        readers=np.array([len(value.consumers) for value in graph.values], dtype=np.int32),
        salt=random.integers(1, 2**63, size=len(order), dtype=np.int64).astype(np.uint64),
    )


def kind_arrays(graph: TaskGraph, order: Sequence[int], number: int) -> KindArrays:
    """The costs of one kind, tasks in the given order."""
    kind = graph.kinds[number]
    return KindArrays(
        seconds=np.array([kind.seconds[task] for task in order]),
        memory=np.array([kind.memory[task] for task in order]),
        send=np.array(kind.send, dtype=np.float64),
        receive=np.array(kind.receive, dtype=np.float64),
        capacity=np.array([INFINITE if kind.capacity is None else kind.capacity]),
    )


def _rows(rows: Iterable[Sequence[int]]) -> tuple[Numbers, Numbers]:
    held = [list(row) for row in rows]
    starts = np.zeros(len(held) + 1, dtype=np.int32)
    starts[1:] = np.cumsum([len(row) for row in held])
    return starts, np.array([item for row in held for item in row], dtype=np.int32)
