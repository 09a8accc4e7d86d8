"""The judge's stop watch: ready-made candidates, each loaded in its own process, run once in turn so that noise hits all.

A candidate is any program that calls `answer_turns`; `artifact_candidate` makes one of artifacts. Whoever chose them looks at
the samples (`runtime.intervals.ratio_interval`); nothing is judged here.
"""

from __future__ import annotations

import math
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from inlay.backends.environment import python_of
from inlay.errors import DeviceError, InlayError, InputError
from inlay.hardware import Cluster, check_local
from inlay.runtime.candidate import LoadedJob, MeasureJob
from inlay.runtime.measure import PATIENCE, WARM_UP_RUNS, check_jobs, interleave, seconds_of
from inlay.workers import Worker, WorkerSpec, start, stop_all

LOAD_SECONDS = 600.0
GRACE_SECONDS = 5.0
_LINE = 65536


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to run: the program of its process, `module:function`, with its config, interpreter, cores and threads.

    The program gets `config` with the number of a descriptor under "turns" added, and hands that to `answer_turns`.
    """

    name: str
    program: str
    config: dict[str, Any] = {}
    python: str = sys.executable
    cores: tuple[int, ...] = ()
    threads: int = 1


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds by candidate, one for each round in the order of rounds; and why a candidate has none."""

    samples: dict[str, tuple[float, ...]]
    failures: dict[str, str]


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a candidate says: nothing (it is ready), the seconds of one run, or why it cannot."""

    seconds: float | None = None
    error: str = ""


def compare(
    candidates: Sequence[Candidate],
    *,
    rounds: int = 30,
    seconds: float = math.inf,
    patience: float = PATIENCE,
    progress: Callable[[str, str], object] = lambda name, state: None,
) -> Comparison:
    """Load all, one after another; then every candidate runs once a round, while the others wait without spinning.

    Ends after `rounds` rounds, or after the first whole round once `seconds` are used up. One that fails, ends, or keeps
    a turn longer than `patience` is left out with its reason. `progress` is told each name's states: "loading", "ready",
    "failed", "done". Raises InputError for no candidates or equal names. All processes have ended when it returns.
    """
    names = [candidate.name for candidate in candidates]
    if not names or len(set(names)) < len(names):
        raise InputError(f"candidates are named {names}, expected at least one and each name once")
    failures: dict[str, str] = {}
    remotes: dict[str, _Remote] = {}

    def failed(name: str, error: InlayError) -> None:
        failures[name] = error.message
        progress(name, "failed")

    with tempfile.TemporaryDirectory(prefix="inlay-compare-") as directory:
        try:
            for number, candidate in enumerate(candidates):
                progress(candidate.name, "loading")
                try:
                    remotes[candidate.name] = remote = _Remote(candidate, directory, number)
                    remote.listen(LOAD_SECONDS)
                    for _ in range(WARM_UP_RUNS):
                        remote.turn(patience)
                    progress(candidate.name, "ready")
                except InlayError as error:
                    failed(candidate.name, error)
            turns = {name: remotes[name].timed_turn(patience) for name in names if name not in failures}
            samples = interleave(turns, rounds=rounds, seconds=seconds, failed=failed)
        finally:
            _end(list(remotes.values()))
    for name in samples:
        progress(name, "done")
    return Comparison(samples={name: tuple(taken) for name, taken in samples.items()}, failures=failures)


def artifact_candidate(name: str, job: MeasureJob, *, device: str, cluster: Cluster) -> Candidate:
    """A candidate whose run is one pass over all points of the job, on the cores of `device`. Raises InputError."""
    check_local(cluster)
    check_jobs([job], device, cluster)
    cores = cluster.device(device).cores
    return Candidate(
        name=name,
        program="inlay.runtime.compare:answer",
        config={"job": msgspec.to_builtins(job)},
        python=python_of(job.backend),
        cores=cores,
        threads=max(1, len(cores)),
    )


def answer(config: dict[str, Any]) -> int:
    """The program of an artifact candidate: load the job, then run a pass over its points at each turn."""
    job = msgspec.convert(config["job"], MeasureJob)
    with told_failure(config["turns"]):
        loaded = LoadedJob(job)
        points = [loaded.point(key) for key in job.keys]

    def run() -> None:
        for point in points:
            if not point.is_bound:
                point.bind()
            point.run()

    answer_turns(config["turns"], run)
    loaded.close()
    return 0


def answer_turns(descriptor: int, run: Callable[[], object]) -> None:
    """Say that all is loaded, then run once at each turn and say how long it took, until the other end goes."""
    with socket.socket(fileno=descriptor) as link:
        _say(link, _Line())
        while link.recv(1):
            try:
                line = _Line(seconds=seconds_of(run))
            except InlayError as error:
                line = _Line(error=error.message)
            _say(link, line)


@contextmanager
def told_failure(descriptor: int) -> Iterator[None]:
    """Around what comes before `answer_turns`: tells the other end why it failed; the process then ends as ever."""
    try:
        yield
    except Exception as error:
        reason = error.message if isinstance(error, InlayError) else f"{type(error).__name__}: {error}"
        with socket.socket(fileno=descriptor) as link, suppress(OSError):
            _say(link, _Line(error=reason))
        raise


class _Remote:
    """One candidate's process and the socket to it."""

    def __init__(self, candidate: Candidate, directory: str, number: int) -> None:
        self._name = candidate.name
        self._link, theirs = socket.socketpair()
        with theirs:
            spec = WorkerSpec(
                name=f"candidate {number}",
                program=candidate.program,
                run_directory=directory,
                config={**candidate.config, "turns": theirs.fileno()},
                python=candidate.python,
                cores=candidate.cores,
                threads=candidate.threads,
            )
            self.worker: Worker = start(spec, pass_descriptors=[theirs.fileno()])

    def turn(self, patience: float) -> float:
        """Have it run once; seconds as it saw them."""
        try:
            self._link.sendall(b"\n")
        except OSError:
            raise self._lost() from None
        seconds = self.listen(patience).seconds
        if seconds is None or not 0 < seconds < math.inf:
            raise DeviceError(f"candidate {self._name!r} answered {seconds} seconds, expected a time above zero")
        return seconds

    def timed_turn(self, patience: float) -> Callable[[], float]:
        """`turn`, for `interleave`."""
        return lambda: self.turn(patience)

    def listen(self, seconds: float) -> _Line:
        """Its next line. Raises DeviceError for its own failure, its end, or its silence."""
        data, end = b"", time.monotonic() + seconds
        while not data.endswith(b"\n"):
            self._link.settimeout(max(1e-3, end - time.monotonic()))
            try:
                part = self._link.recv(_LINE)
            except TimeoutError:
                self.worker.kill()
                raise DeviceError(f"candidate {self._name!r} did not answer within {seconds:g} s") from None
            except OSError:
                part = b""
            if not part:
                raise self._lost()
            data += part
        line = msgspec.json.decode(data, type=_Line)
        if line.error:
            raise DeviceError(line.error)
        return line

    def close(self) -> None:
        """Hang up, which ends its program."""
        self._link.close()

    def _lost(self) -> InlayError:
        deadline = time.monotonic() + 5.0
        while self.worker.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.worker.lost()


def _end(remotes: Sequence[_Remote]) -> None:
    """Hang up, let the programs end what they have started themselves, and end those that do not."""
    for remote in remotes:
        remote.close()
    deadline = time.monotonic() + GRACE_SECONDS
    while any(remote.worker.alive() for remote in remotes) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop_all([remote.worker for remote in remotes])


def _say(link: socket.socket, line: _Line) -> None:
    link.sendall(msgspec.json.encode(line) + b"\n")
