"""What became of each request, as it is seen where the engine is: times of its tokens and where it ran."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

STEP = 1.01
"""Gaps are counted in classes whose ends are 1 % apart."""
_LOG = math.log(STEP)


@dataclass(slots=True, eq=False)
class Record:
    """One request, in virtual seconds. `first` and `last` are of its tokens (-1: none); `tokens` how many; `reason` as in
    Finish, or the code of a Fail; `cached` prompt tokens were not computed; `times` of every token where they are kept."""

    number: int
    arrived: float
    prompt: int
    wanted: int
    first: float = -1.0
    last: float = -1.0
    tokens: int = 0
    prefill: str = ""
    decode: str = ""
    cached: int = 0
    reason: str = ""
    ended: float = -1.0
    session: int = -1
    times: list[float] | None = None

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.first - self.arrived

    @property
    def tpot(self) -> float | None:
        """Mean seconds a token after the first; None for one token."""
        return (self.last - self.first) / (self.tokens - 1) if self.tokens > 1 else None

    @property
    def e2e(self) -> float:
        """Seconds to the last token."""
        return self.last - self.arrived

    @property
    def is_good(self) -> bool:
        """Whether it was answered to its end."""
        return self.reason in ("stop", "length")


@dataclass(slots=True)
class Gaps:
    """Gaps between the pieces of answers, in classes of 1 %: a run has too many of them to keep."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float, count: int = 1) -> None:
        """So many gaps of this length."""
        self.counts[math.floor(math.log(max(seconds, 1e-9)) / _LOG)] += count

    def quantile(self, share: float) -> float | None:
        """The gap that this share is not above, to 1 %; None where there is none."""
        total, seen = sum(self.counts.values()), 0
        for size in sorted(self.counts):
            seen += self.counts[size]
            if seen >= share * total:
                return math.exp((size + 0.5) * _LOG)
        return None


@dataclass(slots=True, eq=False)
class Recorder:
    """All requests of a run, by their numbers."""

    keeps_times: bool = False
    records: dict[int, Record] = field(default_factory=dict)
    gaps: Gaps = field(default_factory=Gaps)
    preempted: int = 0
    recomputed: int = 0

    def arrive(self, number: int, now: float, *, prompt: int, wanted: int, session: int) -> None:
        """A request has come."""
        times: list[float] | None = [] if self.keeps_times else None
        self.records[number] = Record(number, now, prompt, wanted, session=session, times=times)

    def token(self, number: int, now: float) -> None:
        """One token."""
        record = self.records[number]
        record.tokens += 1
        if record.first < 0:
            record.first = now
        elif now > record.last:
            self.gaps.add(now - record.last)
        record.last = now
        if record.times is not None:
            record.times.append(now)

    def coasted(self, numbers: Iterable[int], times: list[tuple[float, int]]) -> None:
        """Each of some requests was given tokens in the same pieces: their times and how many tokens each has."""
        begin, end = times[0][0], times[-1][0]
        tokens = sum([count for _, count in times])
        members = 0
        for number in numbers:
            record = self.records[number]
            self.gaps.add(begin - record.last)
            record.tokens += tokens
            record.last = end
            members += 1
            if record.times is not None:
                record.times += [time for time, count in times for _ in range(count)]
        before = begin
        for time, _ in times[1:]:
            self.gaps.add(time - before, members)
            before = time
