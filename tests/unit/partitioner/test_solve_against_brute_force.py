"""The chain search against trying everything, on random chains with caps, pins, refusals, skips and boundary costs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.hardware import Place
from inlay.partitioner import Plan, Problem, Solution, Step, Value, solve
from inlay.partitioner.problem import memory_by_device, plan_seconds
from inlay.partitioner.symmetry import equal_devices

EVERY_PLACE = (Place("a:0", "one"), Place("a:0", "two"), Place("b:0", "one"))
COST = st.integers(1, 40).map(lambda number: number / 8)
Costs = tuple[tuple[float, ...], ...]


def every_plan(problem: Problem) -> Iterator[tuple[Step, ...]]:
    """All sequences of steps that cover the chain; two runs block by block at one place are one run."""

    def extend(steps: tuple[Step, ...], at: int) -> Iterator[tuple[Step, ...]]:
        if at == problem.count:
            yield steps
            return
        for step in problem.steps[at]:
            last = steps[-1] if steps else None
            if last is None or last.place != step.place or last.fused or step.fused:
                yield from extend((*steps, step), step.end)

    yield from extend((), 0)


def fits(problem: Problem, steps: tuple[Step, ...]) -> bool:
    used = memory_by_device(problem, steps)
    return all((cap := problem.capacity(device)) is None or size <= cap for device, size in used.items())


def seconds_by_hand(problem: Problem, steps: tuple[Step, ...]) -> float:
    """What a plan costs, said again in other words: walk the blocks, remember who has what."""
    place_of = {block: step.place for step in steps for block in range(step.first, step.end)}
    device_of = {block: EVERY_PLACE.index(problem.places[place]) // 2 for block, place in place_of.items()}
    spent = sum(step.seconds for step in steps)
    for before, after in itertools.pairwise(steps):
        if device_of[before.first] == device_of[after.first]:
            spent += problem.handovers[device_of[after.first]]
    for number, value in enumerate(problem.values):
        source = device_of[value.producer]
        for device in {device_of[block] for block in value.consumers} - {source}:
            spent += problem.transfers[number, source, device]
    return spent


def brute_force(problem: Problem) -> list[float]:
    return sorted(seconds_by_hand(problem, steps) for steps in every_plan(problem) if fits(problem, steps))


@st.composite
def problems(draw: st.DrawFn, *, most: int = 8, fused: bool = False, equal: bool = False) -> Problem:
    count = draw(st.integers(1, most))
    costs = [[draw(COST) for _ in range(count)] for _ in EVERY_PLACE]
    sizes = [[draw(st.integers(1, 9)) for _ in range(count)] for _ in EVERY_PLACE]
    refused = {item for item in itertools.product(range(count), range(3)) if draw(st.integers(0, 9)) == 0}
    pins = {at: draw(st.integers(0, 2)) for at in range(count) if draw(st.integers(0, 9)) == 0}
    handovers = (draw(COST), draw(COST) + 1 / 16)  # never alike: of devices that are, mirror images count once
    steps: list[list[Step]] = [[] for _ in range(count)]
    for place, first in itertools.product(range(3), range(count)):
        for end in range(first + 1, count + 1):
            run = range(first, end)
            if any((at, place) in refused or pins.get(at, place) != place for at in run):
                continue
            spent = sum(costs[place][at] for at in run) + handovers[place // 2] * (len(run) - 1)
            size = sum(sizes[place][at] for at in run)
            if fused and len(run) > 1 and draw(st.booleans()):
                spent = draw(COST)  # as if it had been measured
            steps[first].append(Step(first, end, place, False, spent, size))
            if fused and len(run) > 1 and draw(st.booleans()):
                steps[first].append(Step(first, end, place, True, draw(COST), draw(st.integers(1, size))))
    values = [Value(at, (at + 1,)) for at in range(count - 1) if draw(st.integers(0, 3))]
    for _ in range(draw(st.integers(0, 4)) if count > 2 else 0):
        producer = draw(st.integers(0, count - 2))
        readers = draw(st.sets(st.integers(producer + 1, count - 1), min_size=1, max_size=2))
        values.append(Value(producer, tuple(sorted(readers))))
    keys = [(number, *way) for number in range(len(values)) for way in ((0, 1), (1, 0))]
    return Problem(
        count=count,
        places=EVERY_PLACE,
        devices=("a:0", "b:0"),
        steps=tuple(map(tuple, steps)),
        values=tuple(values),
        transfers={key: draw(COST) for key in keys},
        handovers=handovers,
        capacities=tuple(draw(st.none() | st.integers(3, 30)) for _ in range(2)),
    )


def check_plans(problem: Problem, solution: Solution, wanted: int) -> None:
    """The plans are the cheapest ones, each once, each fitting, each at its price."""
    everything = brute_force(problem)
    assert solution.exact
    assert [plan.seconds for plan in solution.plans] == pytest.approx(everything[:wanted], rel=1e-9, abs=1e-9)
    assert len({plan.steps for plan in solution.plans}) == len(solution.plans)
    for plan in solution.plans:
        assert fits(problem, plan.steps)
        assert plan.seconds == pytest.approx(seconds_by_hand(problem, plan.steps), rel=1e-9)
        assert plan.steps in set(every_plan(problem))
    if solution.plans:
        assert solution.bound <= solution.plans[0].seconds + 1e-12


@settings(max_examples=250, deadline=None)
@given(problems(most=5))
def test_the_best_plans_equal_those_of_trying_everything(problem: Problem) -> None:
    check_plans(problem, solve(problem, plans=4), 4)


@settings(max_examples=120, deadline=None)
@given(problems(most=4, fused=True))
def test_runs_that_cost_anything_when_lowered_whole_are_solved_exactly(problem: Problem) -> None:
    for wanted in (1, 3):
        check_plans(problem, solve(problem, plans=wanted), wanted)


@settings(max_examples=25, deadline=None)
@given(problems(most=8))
def test_chains_of_up_to_eight_blocks_at_three_places_are_solved_exactly(problem: Problem) -> None:
    single = replace(problem, steps=tuple(tuple(step for step in held if not step.fused) for held in problem.steps))
    best = min(assignments(single), default=None)
    solution = solve(single)
    assert ([plan.seconds for plan in solution.plans] or [None])[0] == (None if best is None else pytest.approx(best, rel=1e-9))


def tight_problem(seed: int) -> Problem:
    """A chain that is short of memory on both devices."""
    chance = random.Random(seed)
    count = chance.randint(3, 6)
    costs = [[chance.randint(1, 5) for _ in range(count)] for _ in EVERY_PLACE]
    sizes = [[chance.randint(1, 5) for _ in range(count)] for _ in EVERY_PLACE]
    steps = [
        tuple(
            Step(first, end, place, False, float(sum(costs[place][first:end])), sum(sizes[place][first:end]))
            for place in range(3)
            for end in range(first + 1, count + 1)
        )
        for first in range(count)
    ]
    least = sum(min(held) for held in zip(*sizes, strict=True))
    capacities = tuple(max(1, least * chance.randint(3, 9) // 10) for _ in range(2))
    return Problem(
        count=count,
        places=EVERY_PLACE,
        devices=("a:0", "b:0"),
        steps=tuple(steps),
        values=tuple(Value(at, (at + 1,)) for at in range(count - 1)),
        transfers={(at, *way): chance.choice((1 / 4, 1.0)) for at in range(count - 1) for way in ((0, 1), (1, 0))},
        handovers=(0.0, 1 / 8),
        capacities=capacities,
    )


@pytest.mark.parametrize("seeds", [range(60), (1225, 2297, 3164)], ids=["many", "found by a faulty search"])
def test_where_memory_binds_the_cheapest_plan_that_fits_is_found(seeds: Sequence[int]) -> None:
    for seed in seeds:
        problem = tight_problem(seed)
        best = min(assignments(problem), default=None)
        found = [plan.seconds for plan in solve(problem).plans] or [None]
        assert found[0] == (None if best is None else pytest.approx(best, rel=1e-9)), seed


def assignments(problem: Problem) -> Iterator[float]:
    """The cost of every assignment of blocks to places that may be."""
    by_run = {(step.first, step.end, step.place): step for held in problem.steps for step in held}
    for places in itertools.product(range(3), repeat=problem.count):
        runs, first = [], 0
        for end in range(1, problem.count + 1):
            if end == problem.count or places[end] != places[first]:
                runs.append((first, end, places[first]))
                first = end
        if all(run in by_run for run in runs):
            steps = tuple(by_run[run] for run in runs)
            if fits(problem, steps):
                yield seconds_by_hand(problem, steps)


def optimum(problem: Problem) -> float:
    found = solve(problem).plans
    return found[0].seconds if found else float("inf")


@settings(max_examples=100, deadline=None)
@given(problems(most=6, fused=True), st.integers(0, 1), st.integers(1, 9))
def test_a_faster_link_or_more_memory_never_worsens_the_plan(problem: Problem, device: int, more: int) -> None:
    before = optimum(problem)
    faster = {key: cost / (1 + more) if key[1] == device else cost for key, cost in problem.transfers.items()}
    roomier = tuple(cap + more if cap is not None and at == device else cap for at, cap in enumerate(problem.capacities))
    assert optimum(replace(problem, transfers=faster)) <= before + 1e-9
    assert optimum(replace(problem, capacities=roomier)) <= before + 1e-9


@settings(max_examples=100, deadline=None)
@given(problems(most=6, fused=True))
def test_another_device_never_worsens_the_plan(problem: Problem) -> None:
    alone = replace(problem, steps=tuple(tuple(step for step in held if step.place < 2) for held in problem.steps))
    assert optimum(problem) <= optimum(alone) + 1e-9


@settings(max_examples=100, deadline=None)
@given(problems(most=6, fused=True), st.permutations(range(3)))
def test_other_numbers_for_places_and_devices_change_nothing(problem: Problem, order: list[int]) -> None:
    renamed = relabel(problem, order)
    assert optimum(renamed) == pytest.approx(optimum(problem), rel=1e-12)


def relabel(problem: Problem, order: list[int]) -> Problem:
    """The same problem with its places, and by them its devices, in another order."""
    places = tuple(problem.places[old] for old in order)
    devices = tuple(dict.fromkeys(place.device for place in places))
    number = {old: new for new, old in enumerate(order)}
    device = {old: devices.index(name) for old, name in enumerate(problem.devices)}
    back = [problem.devices.index(name) for name in devices]
    return replace(
        problem,
        places=places,
        devices=devices,
        steps=tuple(tuple(replace(step, place=number[step.place]) for step in held) for held in problem.steps),
        transfers={(value, device[one], device[two]): cost for (value, one, two), cost in problem.transfers.items()},
        handovers=tuple(problem.handovers[old] for old in back),
        capacities=tuple(problem.capacities[old] for old in back),
    )


def twin_problem(count: int, *, capacity: int | None, devices: int = 3) -> Problem:
    """Devices that are all alike."""
    names = tuple(f"a:{number}" for number in range(devices))
    steps = [
        tuple(Step(first, end, place, False, float(end - first), end - first) for place in range(devices) for end in ends)
        for first in range(count)
        for ends in [range(first + 1, count + 1)]
    ]
    values = tuple(Value(at, (at + 1,)) for at in range(count - 1))
    ways = itertools.permutations(range(devices), 2)
    moves = {(value, *way): 0.5 for way in ways for value in range(len(values))}
    return Problem(
        count=count,
        places=tuple(Place(name, "one") for name in names),
        devices=names,
        steps=tuple(steps),
        values=values,
        transfers=moves,
        handovers=(0.0,) * devices,
        capacities=(capacity,) * devices,
    )


def test_of_equal_devices_the_first_is_used_first_and_mirror_images_count_once() -> None:
    solution = solve(twin_problem(4, capacity=2), plans=50)
    assert [step.place for step in solution.plans[0].steps] == [0, 1]
    assert all(first_uses(plan) == sorted(first_uses(plan)) for plan in solution.plans)
    everything = [steps for steps in every_plan(twin_problem(4, capacity=2)) if fits(twin_problem(4, capacity=2), steps)]
    classes = {
        tuple((step.first, step.end, first_uses(Plan(0, steps)).index(step.place)) for step in steps) for steps in everything
    }
    assert len(solution.plans) == len(classes) < len(everything)


def first_uses(plan: Plan) -> list[int]:
    return list(dict.fromkeys(step.place for step in plan.steps))


def test_devices_that_differ_in_one_link_one_time_or_their_memory_are_not_equal() -> None:
    alike = twin_problem(3, capacity=9)
    assert equal_devices(alike) == ((0, 1, 2),)
    assert equal_devices(replace(alike, transfers={**(alike.transfers or {}), (0, 1, 2): 0.25})) == ()
    assert equal_devices(replace(alike, capacities=(9, 9, 8))) == ((0, 1),)
    first, *rest = alike.steps
    quicker = tuple(replace(step, seconds=step.seconds / 2) if step.place == 1 else step for step in first)
    faster = replace(alike, steps=(quicker, *rest))
    assert equal_devices(faster) == ((0, 2),)
    assert solve(faster).plans[0].steps[0].place == 1


def test_a_search_that_is_stopped_says_so_and_its_bound_still_holds() -> None:
    problem = twin_problem(12, capacity=5)
    proven, stopped = solve(problem), solve(problem, limit=10)
    assert proven.exact and not stopped.exact
    assert stopped.bound <= proven.plans[0].seconds <= stopped.plans[0].seconds
    assert stopped.plans[0].seconds == pytest.approx(plan_seconds(problem, stopped.plans[0].steps))


def test_what_fits_nowhere_has_no_plan() -> None:
    assert solve(twin_problem(4, capacity=1)).plans == ()
