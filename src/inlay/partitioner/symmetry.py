"""Devices that may be exchanged for one another without changing any cost: of these the first is used first."""

from __future__ import annotations

from inlay.partitioner.problem import Problem


def equal_devices(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """Groups of two or more device numbers in which every exchange leaves the whole problem as it is, in order."""
    groups: list[list[int]] = []
    signatures = [_signature(problem, device) for device in range(len(problem.devices))]
    for device in range(len(problem.devices)):
        for group in groups:
            if signatures[group[0]] == signatures[device] and _links_alike(problem, group[0], device):
                group.append(device)
                break
        else:
            groups.append([device])
    return tuple(tuple(group) for group in groups if len(group) > 1)


def _signature(problem: Problem, device: int) -> tuple[object, ...]:
    """Everything that concerns one device alone."""
    steps = sorted(
        (step.first, step.end, problem.places[step.place].backend, step.fused, step.seconds, step.memory)
        for group in problem.steps
        for step in group
        if problem.device_of[step.place] == device
    )
    return (problem.capacity(device), problem.handover(device), tuple(steps))


def _links_alike(problem: Problem, one: int, other: int) -> bool:
    """Whether exchanging two devices leaves the cost of every move as it is."""
    swapped = {one: other, other: one}
    return all(
        problem.move(value, source, destination)
        == problem.move(value, swapped.get(source, source), swapped.get(destination, destination))
        for value in range(len(problem.values))
        for source in range(len(problem.devices))
        for destination in range(len(problem.devices))
    )
