"""A bound from below on what the rest of a chain costs: the same search without memory and with the newest values alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from inlay.partitioner.problem import Problem, Step

INFINITE = float("inf")
Best = dict[tuple[int, int, bool], float]


class Remaining:
    """For every position, and every place and kind of the step that ends there, the least that can follow.

    Exact where each value is read by the next block only and memory does not bind; otherwise never too high: values
    made before the last block are taken to be everywhere, and devices to hold everything. `rates` charges, by device
    number, seconds for each byte in use there.
    """

    def __init__(self, problem: Problem, rates: Mapping[int, float] | None = None) -> None:
        self._problem, self._rates = problem, dict(rates or {})
        count, places = problem.count, range(len(problem.places))
        self._table: list[dict[tuple[int, bool], float]] = [{} for _ in range(count + 1)]
        self._table[count] = {(place, fused): 0.0 for place in places for fused in (False, True)}
        for at in range(count - 1, 0, -1):
            best = self._best(at)
            for place in places:
                device = problem.device_of[place]
                ways = [(key[1:], seconds) for key, seconds in best.items() if key[0] == device]
                self._table[at][place, True] = min((seconds for _, seconds in ways), default=INFINITE)
                self._table[at][place, False] = min(
                    (seconds for key, seconds in ways if key != (place, False)), default=INFINITE
                )
        self._start = min((self._cost(step) + self.after(step.end, step) for step in self._steps(0)), default=INFINITE)

    def after(self, at: int, last: Step | None) -> float:
        """The least that can follow at that position after such a step; infinite where the chain cannot be ended."""
        return self._start if last is None else self._table[at][last.place, last.fused]

    def _cost(self, step: Step) -> float:
        return step.seconds + self._rates.get(self._problem.device_of[step.place], 0.0) * step.memory

    def _steps(self, at: int) -> tuple[Step, ...]:
        return self._problem.steps[at] if at < self._problem.count else ()

    def _best(self, at: int) -> Best:
        """The least from here on by (device of the step before, place of the next step, whether that is fused)."""
        problem = self._problem
        newest = [number for number in problem.live[at] if problem.values[number].producer == at - 1]
        newest.sort(key=lambda number: problem.values[number].consumers[0])
        reads = [problem.values[number].consumers[0] for number in newest]
        moved: dict[tuple[int, int, int], float] = {}
        best: Best = {}
        for step in self._steps(at):
            target = problem.device_of[step.place]
            seconds = self._cost(step) + self._table[step.end][step.place, step.fused]
            if seconds == INFINITE:
                continue
            count = bisect_left(reads, step.end)
            for device in range(len(problem.devices)):
                way = (device, target, count)
                if way not in moved:
                    cost = sum(problem.move(number, device, target) for number in newest[:count])
                    moved[way] = problem.handover(device) if device == target else cost
                key = (device, step.place, step.fused)
                total = seconds + moved[way]
                if total < best.get(key, INFINITE):
                    best[key] = total
        return best
