"""Whether anybody else was computing: CPU seconds of some processes, of the machine, and turns taken again in a quiet moment.

A framework with two threads on two cores stalls at each of its barriers while another program holds one core, so a
turn under foreign load flatters whoever uses one thread. The rule looks at the load alone, never at the figure measured.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

TICKS = os.sysconf("SC_CLK_TCK")
LIMIT = 0.2
"""Cores that others may use during a turn."""
TRIES = 6
PAUSE_SECONDS = 3.0
BUSY_FIELDS = (1, 2, 3, 6, 7, 8)
"""In the first line of /proc/stat: user, nice, system, interrupts, soft interrupts, stolen."""
Result = TypeVar("Result")


class Watch:
    """From its making on: CPU seconds of the processes named, and what everybody but them and this process used."""

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._pids = pids
        self._begin = time.perf_counter()
        self._cpu, self._own, self._machine = cpu_seconds(pids), time.process_time(), machine_seconds()

    def read(self) -> tuple[float, float]:
        """(CPU seconds of the processes, cores that others used)."""
        machine = machine_seconds() - self._machine
        cpu, own = cpu_seconds(self._pids) - self._cpu, time.process_time() - self._own
        return cpu, max(0.0, machine - cpu - own) / (time.perf_counter() - self._begin)


@dataclass(frozen=True, slots=True)
class Watched(Generic[Result]):
    """What a turn gave, CPU seconds of the processes watched, and whether others used too much of the machine."""

    result: Result
    cpu: float
    noisy: bool


async def quietly(turn: Callable[[], Awaitable[Result]], *, pids: Sequence[int] = ()) -> Watched[Result]:
    """Take the turn, again after a pause while others used too much of the machine; the last one if they never stop."""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE_SECONDS)
        watch = Watch(pids)
        result = await turn()
        cpu, others = watch.read()
        if others <= LIMIT:
            return Watched(result, cpu, False)
    return Watched(result, cpu, True)


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far, all threads, to a hundredth of a second."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def machine_seconds() -> float:
    """Time that all cores together were not idle since the machine started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return sum(int(fields[index]) for index in BUSY_FIELDS) / TICKS
