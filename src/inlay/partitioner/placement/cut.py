"""Two kinds of devices and an amount that only adds up: the least placement is a minimum cut of a small network.

Each task lies on the side of the kind that it is placed on; each value has two nodes of its own, so that it pays once for
leaving and once for entering however many tasks read it. Order and memory are not known to the cut: it is the optimum where
its answer obeys them, and a bound from below where it does not.
"""

from __future__ import annotations

import networkx

from inlay.errors import PartitionError
from inlay.partitioner.placement.graph import INFINITE, Piece, Placement, TaskGraph, achieved, check_placement


def least_cut(graph: TaskGraph, objective: str) -> tuple[float, Placement | None]:
    """What no placement on one device of each of two kinds can be below, and the placement where the cut is one."""
    network = networkx.DiGraph()
    network.add_nodes_from((0, 1))
    costs = [kind.amounts[objective] for kind in graph.kinds]
    for task in range(graph.count):
        for side, ends in enumerate(((("task", task), 1), (0, ("task", task)))):  # who is on side 0 is cut off from node 1
            supported = graph.kinds[side].seconds[task] < INFINITE
            network.add_edge(*ends, **({"capacity": costs[side].tasks[task]} if supported else {}))
    for number, value in enumerate(graph.values):
        producer, readers = ("task", value.producer), [("task", consumer) for consumer in value.consumers]
        leaves, enters = ("leaves", number), ("enters", number)
        # made at 0, read at 1: 0 sends and 1 receives
        network.add_edge(producer, leaves, capacity=costs[0].send[number] + costs[1].receive[number])
        for reader in readers:
            network.add_edge(leaves, reader)
            network.add_edge(reader, enters)
        # made at 1, read at 0: 1 sends and 0 receives
        network.add_edge(enters, producer, capacity=costs[1].send[number] + costs[0].receive[number])
    try:
        bound, (side, _) = networkx.minimum_cut(network, 0, 1)
    except networkx.NetworkXUnbounded:
        return INFINITE, None
    zero = tuple(task for task in range(graph.count) if ("task", task) in side)
    one = tuple(task for task in range(graph.count) if ("task", task) not in side)
    for pieces in ([Piece(0, zero), Piece(1, one)], [Piece(1, one), Piece(0, zero)]):
        held = tuple(piece for piece in pieces if piece.tasks)
        try:
            check_placement(graph, held)
        except PartitionError:
            continue
        found = achieved(graph, held, objective)
        return bound, Placement(held, found, min(bound, found), "minimum cut of two kinds")
    return bound, None
