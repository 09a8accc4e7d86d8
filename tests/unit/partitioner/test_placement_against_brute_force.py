"""Every objective against trying all placements; what must never make an optimum worse; and what changes nothing."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from placement_world import INFINITE, best_value, every_placement, random_graph

from inlay.errors import PartitionError
from inlay.partitioner.placement import Piece, Placement, TaskGraph, achieved, check_placement, frontier, place
from inlay.partitioner.placement.contract import contract
from inlay.partitioner.placement.throughput import fastest_stream

OBJECTIVES = ("throughput", "latency", "cost", "energy")
COUNTS = ((1, 1), (2, 1), (1, 1, 1))


def same(value: float, wanted: float) -> bool:
    return value == wanted or abs(value - wanted) <= 1e-6 * max(1.0, abs(wanted))


def value_of(found: Placement | None) -> float:
    return INFINITE if found is None else found.value


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(6))
def test_every_objective_is_as_good_as_trying_all_placements(seed: int, objective: str) -> None:
    graph = random_graph(seed, tasks=6, counts=COUNTS[seed % 3], tight=seed % 2 == 0, holes=seed in (0, 5))
    wanted = best_value(graph, every_placement(graph), objective)
    found = place(graph, objective, seconds=30)
    assert same(value_of(found), wanted)
    if found is not None:
        check_placement(graph, found.pieces)
        assert found.bound <= found.value
        assert found.gap <= 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_fourteen_tasks_on_two_devices_are_as_good_as_trying_all(seed: int) -> None:
    graph = random_graph(seed, tasks=14, counts=(1, 1), tight=seed % 2 == 1, holes=seed == 3)
    wanted = best_value(graph, every_placement(graph), "throughput")
    found = place(graph, "throughput", seconds=30)
    assert same(value_of(found), wanted)
    assert found is None or (found.gap == 0.0 and "ideals" in found.method)


@pytest.mark.parametrize("seed", range(3))
def test_a_budget_on_one_objective_bends_another(seed: int) -> None:
    graph = random_graph(seed, tasks=6, counts=COUNTS[seed % 3])
    placements = every_placement(graph)
    fastest, cheapest = best_value(graph, placements, "latency"), best_value(graph, placements, "cost")
    dear = min(achieved(graph, item, "cost") for item in placements if same(achieved(graph, item, "latency"), fastest))
    limit = (dear + cheapest) / 2
    found = place(graph, "latency", within={"cost": limit}, seconds=30)
    assert same(value_of(found), best_value(graph, placements, "latency", cost=limit))
    assert place(graph, "latency", within={"cost": cheapest * 0.5}, seconds=30) is None or cheapest == 0.0


def test_a_pin_is_obeyed_and_costs_what_it_costs() -> None:
    graph = random_graph(4, tasks=6, counts=(1, 1))
    placements = every_placement(graph)
    for task in range(graph.count):
        for kind in range(2):
            held = [item for item in placements if any(task in piece.tasks and piece.kind == kind for piece in item)]
            found = place(graph, "throughput", pins={task: kind}, seconds=30)
            assert same(value_of(found), best_value(graph, held, "throughput"))


def test_the_frontier_holds_no_placement_that_another_beats() -> None:
    graph = random_graph(1, tasks=6, counts=(1, 1))
    found = frontier(graph, "latency", "cost", points=5, seconds=20)
    pairs = [(achieved(graph, item.pieces, "latency"), achieved(graph, item.pieces, "cost")) for item in found]
    assert pairs
    for one in pairs:
        assert not any(two != one and two[0] <= one[0] and two[1] <= one[1] for two in pairs)


@pytest.mark.parametrize("seed", range(8))
def test_more_memory_faster_links_and_more_devices_never_make_the_optimum_worse(seed: int) -> None:
    graph = random_graph(seed, tasks=9, counts=COUNTS[seed % 3], tight=True)
    before = value_of(fastest_stream(graph))
    better = {
        "memory": [dataclasses.replace(kind, capacity=(kind.capacity or 0) * 1.5) for kind in graph.kinds],
        "links": [
            dataclasses.replace(kind, send=tuple(s / 2 for s in kind.send), receive=tuple(r / 2 for r in kind.receive))
            for kind in graph.kinds
        ],
        "devices": [dataclasses.replace(kind, count=(kind.count or 0) + 1) for kind in graph.kinds],
    }
    for kinds in better.values():
        after = value_of(fastest_stream(dataclasses.replace(graph, kinds=tuple(kinds))))
        assert after <= before * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_other_numbers_for_tasks_and_kinds_change_nothing(seed: int) -> None:
    graph = random_graph(seed, tasks=10, counts=COUNTS[seed % 3], tight=seed % 2 == 0, holes=seed > 5)
    renamed = relabelled(graph, seed)
    assert same(value_of(fastest_stream(renamed)), value_of(fastest_stream(graph)))


def relabelled(graph: TaskGraph, seed: int) -> TaskGraph:
    number = list(range(graph.count))
    random.Random(seed).shuffle(number)
    back = sorted(range(graph.count), key=lambda task: number[task])
    kinds = tuple(
        dataclasses.replace(
            kind,
            seconds=tuple(kind.seconds[at] for at in back),
            memory=tuple(kind.memory[at] for at in back),
            amounts={},
        )
        for kind in reversed(graph.kinds)
    )
    values = tuple(
        dataclasses.replace(
            value, producer=number[value.producer], consumers=tuple(sorted(number[at] for at in value.consumers))
        )
        for value in graph.values
    )
    edges = tuple((number[one], number[other]) for one, other in graph.edges)
    return TaskGraph(graph.count, edges, values, kinds)


@pytest.mark.parametrize("seed", range(12))
def test_merging_tasks_without_cost_loses_no_optimum(seed: int) -> None:
    graph = random_graph(seed, tasks=9, counts=COUNTS[seed % 3])
    chance = random.Random(seed)
    free = {task for task in range(graph.count) if chance.random() < 0.5}
    kinds = tuple(
        dataclasses.replace(
            kind,
            seconds=tuple(0.0 if task in free else item for task, item in enumerate(kind.seconds)),
            memory=tuple(0.0 for _ in kind.memory),
            send=tuple(0.1 for _ in kind.send),
            receive=tuple(0.1 for _ in kind.receive),
            amounts={},
        )
        for kind in graph.kinds
    )
    graph = dataclasses.replace(graph, kinds=kinds)
    assert same(value_of(fastest_stream(graph)), best_value(graph, every_placement(graph), "throughput"))
    small = contract(graph)
    assert sorted(task for held in small.members for task in held) == list(range(graph.count))


def test_a_placement_that_breaks_a_rule_is_named() -> None:
    graph = random_graph(1, tasks=4, counts=(1, 1))
    one, other = next(edge for edge in graph.edges)
    rest = tuple(task for task in range(4) if task != other)
    with pytest.raises(PartitionError, match=f"task {other} in piece 0 comes before task {one}"):
        check_placement(graph, [Piece(0, (other,)), Piece(1, rest)])
    with pytest.raises(PartitionError, match="in no piece"):
        check_placement(graph, [Piece(0, rest)])
    with pytest.raises(PartitionError, match="2 devices 'kind0' are used, expected at most 1"):
        check_placement(graph, [Piece(0, (0,)), Piece(0, (1, 2, 3))])
    with pytest.raises(
        PartitionError, match=r"objective 'speed' is not known, expected one of: latency, throughput, cost, energy"
    ):
        place(graph, "speed")


def test_the_kernels_without_numba_find_the_same() -> None:
    script = (
        "import sys; sys.modules['numba'] = None; sys.path.insert(0, sys.argv[1])\n"
        "from placement_world import random_graph\n"
        "from inlay.partitioner.placement import is_compiled, place\n"
        "graph = random_graph(3, tasks=10, counts=(2, 1), tight=True)\n"
        "print(is_compiled(), repr(place(graph, 'throughput').value))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    ).stdout.split()
    found = place(random_graph(3, tasks=10, counts=(2, 1), tight=True), "throughput")
    assert found is not None
    assert shown == ["False", repr(found.value)]


def test_a_graph_too_large_for_the_programme_keeps_what_was_found_or_is_told() -> None:
    graph = random_graph(1, tasks=60, counts=(20, 20))
    found = place(graph, "cost", seconds=5)
    assert found is not None and found.method.startswith("all of it on") and found.method.endswith("no certificate")
    tight = random_graph(1, tasks=60, counts=(20, 20), tight=True)
    with pytest.raises(PartitionError, match="no placement of 60 tasks was found, and the programme for it would have 4800"):
        place(tight, "cost", seconds=5)
