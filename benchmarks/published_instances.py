"""Reads the placement instances published with Tarnawski et al. (NeurIPS 2020) as task graphs.

Files: github.com/msr-fiddle/dnn-partitioning, MIT licence. Backward nodes follow their colour class, so that only the forward
graph is cut; classes that lie on a common forward cycle become one task.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from inlay.partitioner.placement.graph import DeviceKind, TaskGraph, TaskValue

ACCELERATOR, HOST = 0, 1


def read_instance(path: Path, *, hosts: int | None) -> TaskGraph:
    """The instance of a file; `hosts` is how many CPU devices there are (None: as many as wanted)."""
    raw = json.loads(path.read_text())
    nodes = {node["id"]: node for node in raw["nodes"]}
    classes = _classes(raw, nodes)
    forward = {node for node in nodes if not nodes[node].get("isBackwardNode")}
    edges = _forward_edges(raw, nodes, classes, forward)
    count = max(classes.values()) + 1
    merged = _merge_cycles(count, edges)
    task_of = {node: merged[number] for node, number in classes.items()}
    count = max(merged) + 1
    edges = {(merged[one], merged[other]) for one, other in edges if merged[one] != merged[other]}
    readers: dict[int, set[int]] = defaultdict(set)
    cost: dict[int, float] = {}
    for edge in raw["edges"]:
        source, target = edge["sourceId"], edge["destId"]
        cost[source] = float(edge["cost"])
        if task_of[source] != task_of[target]:
            readers[source].add(task_of[target])
    made = [node for node in sorted(nodes) if readers[node]]
    values = tuple(TaskValue(task_of[node], tuple(sorted(readers[node]))) for node in made)
    costs = tuple(cost[node] for node in made)
    seconds = {name: [0.0] * count for name in ("fpgaLatency", "cpuLatency")}
    memory = [0.0] * count
    for node, held in nodes.items():
        for name, by_task in seconds.items():
            by_task[task_of[node]] += float(held[name])
        if not held.get("supportedOnFpga", 1):
            seconds["fpgaLatency"][task_of[node]] = float("inf")
        memory[task_of[node]] += float(held.get("size", 0) or 0)
    nothing = (0.0,) * len(values)
    accelerator = DeviceKind(
        "accelerator", int(raw["maxFPGAs"]), tuple(seconds["fpgaLatency"]), tuple(memory), costs, costs,
        float(raw["maxSizePerFPGA"]),
    )  # fmt: skip
    host = DeviceKind("host", hosts, tuple(seconds["cpuLatency"]), (0.0,) * count, nothing, nothing)
    return TaskGraph(count, tuple(sorted(edges)), values, (accelerator, host))


def host_count(path: Path) -> int:
    """How many CPU devices a file names."""
    return int(json.loads(path.read_text())["maxCPUs"])


def _classes(raw: dict[str, Any], nodes: dict[Any, Any]) -> dict[Any, int]:
    """A number for each node: nodes of one colour share it."""
    colours = {node: nodes[node].get("colorClass") for node in sorted(nodes)}
    keys = {node: ("alone", node) if colour is None else ("colour", colour) for node, colour in colours.items()}
    number = {key: at for at, key in enumerate(dict.fromkeys(keys.values()))}
    return {node: number[key] for node, key in keys.items()}


def _forward_edges(
    raw: dict[str, Any], nodes: dict[Any, Any], classes: dict[Any, int], forward: set[Any]
) -> set[tuple[int, int]]:
    """The edges that order the classes: forward ones, and mirrored those that touch a class of backward nodes alone."""
    has_forward = {classes[node] for node in forward}
    edges: set[tuple[int, int]] = set()
    for edge in raw["edges"]:
        source, target = edge["sourceId"], edge["destId"]
        one, other = classes[source], classes[target]
        if source in forward and target in forward:
            edges.add((one, other))
        elif source not in forward and target not in forward and not (one in has_forward and other in has_forward):
            edges.add((other, one))
    return {(one, other) for one, other in edges if one != other}


def _merge_cycles(count: int, edges: set[tuple[int, int]]) -> list[int]:
    """A new number for each class: those on a common cycle (strongly connected) share it."""
    after: list[list[int]] = [[] for _ in range(count)]
    before: list[list[int]] = [[] for _ in range(count)]
    for one, other in edges:
        after[one].append(other)
        before[other].append(one)
    finished: list[int] = []
    seen = [False] * count
    for start in range(count):
        if seen[start]:
            continue
        seen[start] = True
        walk = [(start, iter(after[start]))]
        while walk:
            node, following = walk[-1]
            for other in following:
                if not seen[other]:
                    seen[other] = True
                    walk.append((other, iter(after[other])))
                    break
            else:
                finished.append(node)
                walk.pop()
    group, groups = [-1] * count, 0
    for start in reversed(finished):
        if group[start] >= 0:
            continue
        group[start], reach = groups, [start]
        while reach:
            for other in before[reach.pop()]:
                if group[other] < 0:
                    group[other] = groups
                    reach.append(other)
        groups += 1
    return group
