"""The cut as numbers alone: a chain of blocks, what each run of them costs at each place, and what it costs to move on.

Made by `build`, solved by `solve`. Seconds here are the expected ones; intervals are looked at when a plan is priced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from inlay.hardware import Place


@dataclass(frozen=True)
class Step:
    """Blocks `first` to `end` (not included) at the place of that number, lowered whole (`fused`) or block by block."""

    first: int
    end: int
    place: int
    fused: bool
    seconds: float
    memory: int = 0


@dataclass(frozen=True)
class Value:
    """Something that block `producer` makes and the later blocks `consumers`, ascending, read."""

    producer: int
    consumers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """`steps` lists what may run, by first block; what is not listed cannot be done.

    `places` are numbered; `device_of` is the device number of each place; `transfers[value, source, destination]` the
    seconds of moving a value between devices; `handovers` by device, of going on within its process; `capacities` in
    bytes, None = unknown. `rates` are by objective what a second of each device comes to.
    """

    count: int
    places: tuple[Place, ...]
    devices: tuple[str, ...]
    steps: tuple[tuple[Step, ...], ...]
    values: tuple[Value, ...] = ()
    transfers: Mapping[tuple[int, int, int], float] | None = None
    handovers: tuple[float, ...] = ()
    capacities: tuple[int | None, ...] = ()
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @cached_property
    def device_of(self) -> tuple[int, ...]:
        """The number of the device of each place."""
        return tuple(self.devices.index(place.device) for place in self.places)

    def move(self, value: int, source: int, destination: int) -> float:
        """Seconds of moving a value from device to device."""
        return 0.0 if source == destination or self.transfers is None else self.transfers[value, source, destination]

    def handover(self, device: int) -> float:
        """Seconds of going on from one executable to the next on a device."""
        return self.handovers[device] if self.handovers else 0.0

    def capacity(self, device: int) -> int | None:
        """Bytes of a device, None where they are not known."""
        return self.capacities[device] if self.capacities else None

    @cached_property
    def _needs(self) -> dict[tuple[int, int], tuple[int, ...]]:
        return {}

    def needs(self, first: int, end: int) -> tuple[int, ...]:
        """The values from before `first` that blocks `first` to `end` read."""
        if (first, end) not in self._needs:
            self._needs[first, end] = tuple(
                number
                for number, value in enumerate(self.values)
                if value.producer < first and any(first <= block < end for block in value.consumers)
            )
        return self._needs[first, end]

    @cached_property
    def live(self) -> tuple[tuple[int, ...], ...]:
        """The values that cross each position: made before it and read at or after it."""
        return tuple(
            tuple(number for number, value in enumerate(self.values) if value.producer < at <= value.consumers[-1])
            for at in range(self.count + 1)
        )


@dataclass(frozen=True)
class Plan:
    """Steps that cover the chain in order, and their seconds with all that moves; for another objective, its value."""

    seconds: float
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Move:
    """A value that goes from the step `source` to the device of the step `destination`, the first there to read it."""

    value: int
    source: int
    destination: int


def moves_of(problem: Problem, steps: Sequence[Step]) -> tuple[tuple[Move, ...], tuple[int, ...]]:
    """What goes between devices, each value to each device once and from where it was made; and the devices of the
    handovers: one for each step that goes on where the step before it ran."""
    made = {block: number for number, step in enumerate(steps) for block in range(step.first, step.end)}
    held: dict[int, set[int]] = {}
    moves: list[Move] = []
    handovers: list[int] = []
    for number, step in enumerate(steps):
        device = problem.device_of[step.place]
        if number and problem.device_of[steps[number - 1].place] == device:
            handovers.append(device)
        for value in problem.needs(step.first, step.end):
            source = made[problem.values[value].producer]
            there = held.setdefault(value, {problem.device_of[steps[source].place]})
            if device not in there:
                there.add(device)
                moves.append(Move(value, source, number))
    return tuple(moves), tuple(handovers)


def plan_seconds(problem: Problem, steps: Sequence[Step]) -> float:
    """What a plan costs: its steps, its moves and its handovers."""
    moves, handovers = moves_of(problem, steps)
    devices = [problem.device_of[step.place] for step in steps]
    moved = sum(problem.move(item.value, devices[item.source], devices[item.destination]) for item in moves)
    return sum(step.seconds for step in steps) + moved + sum(problem.handover(device) for device in handovers)


def loads(problem: Problem, steps: Sequence[Step]) -> dict[int, float]:
    """Seconds that each device is busy: its steps and handovers, and every move at both of its ends."""
    moves, handovers = moves_of(problem, steps)
    devices = [problem.device_of[step.place] for step in steps]
    found = dict.fromkeys(devices, 0.0)
    for step, device in zip(steps, devices, strict=True):
        found[device] += step.seconds
    for move in moves:
        for end in (move.source, move.destination):
            found[devices[end]] += problem.move(move.value, devices[move.source], devices[move.destination])
    for device in handovers:
        found[device] += problem.handover(device)
    return found


def value_of(problem: Problem, steps: Sequence[Step], objective: str) -> float:
    """What a plan comes to in one of the objectives (`specs.goal`). For a stream each device runs one stretch of blocks:
    a plan that comes back to a device has none, and its value is infinite."""
    if objective == "latency":
        return plan_seconds(problem, steps)
    busy = loads(problem, steps)
    if objective == "throughput":
        devices = [problem.device_of[step.place] for step in steps]
        stretches = [device for at, device in enumerate(devices) if at == 0 or devices[at - 1] != device]
        return max(busy.values(), default=0.0) if len(stretches) == len(set(stretches)) else float("inf")
    return sum(problem.rates[objective][device] * seconds for device, seconds in busy.items())


def memory_by_device(problem: Problem, steps: Sequence[Step]) -> dict[int, int]:
    """Bytes that a plan takes on each device that it uses."""
    used: dict[int, int] = {}
    for step in steps:
        device = problem.device_of[step.place]
        used[device] = used.get(device, 0) + step.memory
    return used
