"""Candidates run in turn, and all opened anew several times: where a process's memory lands when it starts moves its figures.

Measured here: of two equal processes whose weights are read from memory at each run, the one started first was up to a
quarter slower until its end. So the order of starting turns from opening to opening, and intervals are drawn from openings.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence

from measuring import RESAMPLES, Spread, say

from inlay.runtime.compare import Candidate, compare

Taken = list[list[float]]
"""Seconds of one candidate: a list for each opening, in it one for each round."""
QUIET_LOAD = 1.5
PAUSE_SECONDS = 10.0


def race(candidates: Sequence[Candidate], *, openings: int, rounds: int, label: str = "") -> dict[str, Taken]:
    """Every candidate once a round, all of them closed and opened again after `rounds` rounds, `openings` times.

    Raises SystemExit where one fails: what is left out would not be seen in a ratio.
    """
    found: dict[str, Taken] = {candidate.name: [] for candidate in candidates}
    for number in range(openings):
        first = number % len(candidates)
        begun = time.perf_counter()
        compared = compare([*candidates[first:], *candidates[:first]], rounds=rounds)
        if compared.failures:
            raise SystemExit(f"error: {label}: {compared.failures}")
        for name, taken in compared.samples.items():
            found[name].append(list(taken))
        say(f"{label} opening {number + 1} of {openings}: {time.perf_counter() - begun:.1f} s, load {os.getloadavg()[0]:.2f}")
    return found


def median(taken: Taken) -> float:
    """Of all rounds of all openings."""
    return statistics.median(value for opening in taken for value in opening)


def ratio(ours: Taken, theirs: Taken, *, seed: int = 11) -> Spread:
    """Of the medians, with its 95 % bootstrap interval: openings are drawn, and rounds within them, the same for both."""
    rng = random.Random(seed)
    drawn = []
    for _ in range(RESAMPLES // 4):
        one, two = list[float](), list[float]()
        for opening in rng.choices(range(len(ours)), k=len(ours)):
            picks = rng.choices(range(len(ours[opening])), k=len(ours[opening]))
            one += [ours[opening][at] for at in picks]
            two += [theirs[opening][at] for at in picks]
        drawn.append(statistics.median(one) / statistics.median(two))
    drawn.sort()
    return Spread(median(ours) / median(theirs), drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn)) - 1])


def wait_for_quiet(seconds: float) -> float:
    """Until the load of the last minute is below QUIET_LOAD, at most so long; the load then."""
    end = time.monotonic() + seconds
    while (load := os.getloadavg()[0]) > QUIET_LOAD and time.monotonic() < end:
        time.sleep(PAUSE_SECONDS)
    return load
