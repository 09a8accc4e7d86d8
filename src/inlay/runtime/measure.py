"""The only place that times things: runs of loaded artifacts, and what `runtime.roofline` gives it to repeat.

`measure` and `compare` are for the process that wants to know; they start measuring processes (`main`, `answer`) one at
a time, pinned to the device's cores, each with one framework in it. Nothing here decides what is worth measuring.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from inlay.backends.environment import python_of
from inlay.errors import DeviceError, InlayError, InputError
from inlay.hardware import Cluster, check_local, device_kind
from inlay.runtime.candidate import LoadedJob, LoadedPoint, MeasureJob, private_bytes, weight_bytes
from inlay.runtime.intervals import quartiles
from inlay.specs.profile import Failure, Profile, ProfileKey
from inlay.workers import Worker, WorkerSpec, start

SHORTEST_SAMPLE = 2e-3
ROUNDS = 10
WARM_UP_RUNS = 2
PATIENCE = 180.0
POLL_SECONDS = 0.02
MOST_JOBS = 32
PROGRAM = "inlay.runtime.measure:main"
DEFAULT_MEMORY = 4 << 30
Name = TypeVar("Name", bound=Hashable)


class MeasureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of `main`: jobs of one backend; where each step is told, and which candidate is at work this moment."""

    jobs: tuple[MeasureJob, ...]
    events: str
    current: str
    rounds: int = ROUNDS
    seconds: float = 60.0


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the events file: candidate (jobs' keys counted through), state and what belongs to it.

    States are "loading", "timing", "done" (seconds of one run and bytes) and "failed" (why).
    """

    candidate: int
    state: str
    low: float = 0.0
    median: float = 0.0
    high: float = 0.0
    rounds: int = 0
    memory: int = 0
    reason: str = ""


def seconds_of(run: Callable[[], object], *, repeats: int = 1) -> float:
    """Seconds of one run, by the wall clock, as the mean of `repeats` runs one after another."""
    begun = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    return (time.perf_counter_ns() - begun) / repeats * 1e-9


def repeats_for(run: Callable[[], object], *, shortest: float = SHORTEST_SAMPLE) -> int:
    """How often to repeat a warm run so that a sample lasts at least `shortest` seconds. It is run to find out."""
    repeats = 1
    while (spent := seconds_of(run, repeats=repeats) * repeats) < shortest:
        repeats = max(repeats + 1, min(repeats * 10, math.ceil(1.2 * shortest * repeats / max(spent, 1e-9))))
    return repeats


def time_runs(run: Callable[[], object], *, samples: int, warm_up: int = 1) -> list[float]:
    """Seconds of one run, `samples` times, after warm-up; short runs are repeated within a sample."""
    for _ in range(warm_up):
        run()
    repeats = repeats_for(run)
    return [seconds_of(run, repeats=repeats) for _ in range(samples)]


def interleave(
    turns: Mapping[Name, Callable[[], float]],
    *,
    rounds: int,
    seconds: float = math.inf,
    failed: Callable[[Name, InlayError], object],
) -> dict[Name, list[float]]:
    """Every candidate once, then every one again, `rounds` times: samples by name, in order of rounds.

    Each round begins with the next candidate, so that none always follows the same one. Once `seconds` are used up no
    further turn begins, but the first round is always whole. One that raises an InlayError is told to `failed`, and its
    samples are dropped; the others go on. Raises InputError for fewer rounds than 1.
    """
    if rounds < 1 or not seconds > 0:
        raise InputError(f"{rounds} rounds within {seconds} s, expected at least one and some time")
    samples: dict[Name, list[float]] = {name: [] for name in turns}
    order, end = list(turns), time.monotonic() + seconds
    for number in range(rounds):
        first = number % max(len(order), 1)
        for name in (*order[first:], *order[:first]):
            if number and time.monotonic() > end:
                return samples
            try:
                samples[name].append(turns[name]())
            except InlayError as error:
                del samples[name]
                failed(name, error)
        order = [name for name in order if name in samples]
    return samples


class Turn:
    """One candidate: its buffers bound again where another size of the same job was run since, then one sample."""

    def __init__(self, point: LoadedPoint, mark: Callable[[], object]) -> None:
        self._point, self._mark = point, mark
        self._repeats = 0

    def warm_up(self) -> None:
        """Bind and run until frameworks have compiled and allocated what they do late; then see how long a run is."""
        self._point.bind()
        for _ in range(WARM_UP_RUNS):
            self._point.run()
        self._repeats = repeats_for(self._point.run)

    def __call__(self) -> float:
        self._mark()
        try:
            if not self._point.is_bound:
                self._point.bind()
                self._point.run()  # not timed: some frameworks settle on a new shape in its first run
            return seconds_of(self._point.run, repeats=self._repeats)
        except InlayError:
            raise
        except Exception as error:
            raise DeviceError(f"{type(error).__name__}: {error}") from error


class _Session:
    """A measuring process at work: loads every job, then times all candidates in turn, and tells each step."""

    def __init__(self, config: MeasureConfig) -> None:
        self._config = config
        self._events = os.open(config.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._current = os.open(config.current, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._memory: dict[int, int] = {}
        self._turns: dict[int, Turn] = {}
        self._rehearsed = False

    def run(self) -> None:
        """Everything; never raises for a candidate's sake."""
        first = 0
        for job in self._config.jobs:
            candidates = range(first, first + len(job.keys))
            first = candidates.stop
            self._mark(candidates.start)
            for candidate in candidates:
                self._tell(Told(candidate=candidate, state="loading"))
            self._attempt(range(0), lambda job=job: self._rehearse(job))  # type: ignore[misc]
            self._attempt(candidates, lambda job=job, candidates=candidates: self._load(job, candidates))  # type: ignore[misc]
        gc.collect()
        gc.disable()
        samples = interleave(self._turns, rounds=self._config.rounds, seconds=self._config.seconds, failed=self._fail)
        for candidate, taken in samples.items():
            low, median, high = quartiles(taken)
            self._tell(
                Told(
                    candidate=candidate,
                    state="done",
                    low=low,
                    median=median,
                    high=high,
                    rounds=len(taken),
                    memory=self._memory[candidate],
                )
            )

    def _load(self, job: MeasureJob, candidates: range) -> None:
        before = private_bytes()
        loaded = LoadedJob(job)
        loading = private_bytes() - before
        for candidate, key in zip(candidates, job.keys, strict=True):
            self._mark(candidate)
            self._tell(Told(candidate=candidate, state="timing"))

            def prepare(candidate: int = candidate, key: ProfileKey = key) -> None:
                before = private_bytes()
                turn = Turn(loaded.point(key), lambda: self._mark(candidate))
                turn.warm_up()
                self._memory[candidate] = max(0, loading + private_bytes() - before)
                self._turns[candidate] = turn

            self._attempt(range(candidate, candidate + 1), prepare)

    def _rehearse(self, job: MeasureJob) -> None:
        """Load and run the first job once before, so that the framework's own memory is not counted as a candidate's."""
        if self._rehearsed:
            return
        loaded = LoadedJob(job)
        try:
            Turn(loaded.point(job.keys[0]), lambda: None).warm_up()
        finally:
            loaded.close()
        self._rehearsed = True
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only: freed memory must not hide what comes next
        if trim is not None:
            trim(0)

    def _attempt(self, candidates: range, work: Callable[[], object]) -> None:
        """Work for these candidates; what goes wrong is their reason (of none: it will go wrong again for its owner)."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  # process edge: one candidate's failure is a reason, others go on
            for candidate in candidates:
                self._fail(candidate, error)

    def _mark(self, candidate: int) -> None:
        os.pwrite(self._current, b"%-10d" % candidate, 0)

    def _tell(self, told: Told) -> None:
        os.write(self._events, msgspec.json.encode(told) + b"\n")

    def _fail(self, candidate: int, error: Exception) -> None:
        reason = error.message if isinstance(error, InlayError) else f"{type(error).__name__}: {error}"
        self._tell(Told(candidate=candidate, state="failed", reason=reason))


def main(config: dict[str, Any]) -> int:
    """The program of a measuring process: load and time what `config` (MeasureConfig) names; outcomes go to its files."""
    try:
        parsed = msgspec.convert(config, MeasureConfig)
    except msgspec.ValidationError as error:
        known = ", ".join(MeasureConfig.__struct_fields__)
        raise InputError(f"config of the measuring process: {error}; known fields: {known}") from error
    _Session(parsed).run()
    return 0


Progress = Callable[[ProfileKey, str], object]


def measure(
    jobs: Sequence[MeasureJob],
    *,
    device: str,
    cluster: Cluster,
    progress: Progress = lambda key, state: None,
    rounds: int = ROUNDS,
    seconds: float = 60.0,
    patience: float = PATIENCE,
) -> tuple[list[Profile], list[Failure]]:
    """Time every key of every job on the cores of `device`: the profiles, and what could not be timed with the reason.

    One process after another, each with one backend and as many jobs as its memory takes well; candidates of one process
    are interleaved for `rounds` rounds, or until `seconds` are used up. A candidate that fails, ends its process or keeps it
    busy for `patience` seconds is a Failure, and the others are timed all the same. `progress` is told each key's states:
    "loading", "timing", "done", "failed". Raises InputError for jobs that do not belong to this device, ClusterError for
    cores that are not here. Call it from a thread that lives until it returns.
    """
    for name, value in (("rounds", rounds), ("seconds", seconds), ("patience", patience)):
        if not value > 0:
            raise InputError(f"{name} is {value}, expected more than zero")
    check_local(cluster)
    check_jobs(jobs, device, cluster)
    found = cluster.device(device)
    outcomes: dict[ProfileKey, Profile | Failure] = {}
    for group in group_jobs(jobs, limit=(found.memory or DEFAULT_MEMORY) // 2):
        rest = group
        while rest:
            with tempfile.TemporaryDirectory(prefix="inlay-measure-") as directory:
                config = MeasureConfig(
                    jobs=rest,
                    events=f"{directory}/events.jsonl",
                    current=f"{directory}/current",
                    rounds=rounds,
                    seconds=seconds,
                )
                spec = WorkerSpec(
                    name=f"measure {device}/{rest[0].backend}",
                    program=PROGRAM,
                    run_directory=directory,
                    config=msgspec.to_builtins(config),
                    python=python_of(rest[0].backend),
                    cores=found.cores,
                    threads=max(1, len(found.cores)),
                )
                watch = _Watch(config, progress)
                watch.follow(spec, patience)
            outcomes.update(watch.outcomes)
            rest = tuple(_without(job, outcomes) for job in rest if any(key not in outcomes for key in job.keys))
    ordered = [outcomes[key] for job in jobs for key in job.keys]
    profiles = [item for item in ordered if isinstance(item, Profile)]
    return profiles, [item for item in ordered if isinstance(item, Failure)]


def group_jobs(jobs: Sequence[MeasureJob], *, limit: int) -> list[tuple[MeasureJob, ...]]:
    """Jobs that share a process: of one backend, their weights together within `limit` bytes (or one job alone)."""
    groups: list[tuple[MeasureJob, ...]] = []
    for backend in dict.fromkeys(job.backend for job in jobs):
        open_group: list[MeasureJob] = []
        held = 0
        for job in (job for job in jobs if job.backend == backend):
            size = 0
            with suppress(InlayError):  # unusable: the measuring process says why
                size = weight_bytes(job)
            if open_group and (held + size > limit or len(open_group) == MOST_JOBS):
                groups.append(tuple(open_group))
                open_group, held = [], 0
            open_group.append(job)
            held += size
        groups.append(tuple(open_group))
    return groups


class _Watch:
    """Follows one measuring process from outside: its events, which candidate is at work, and how it ended."""

    def __init__(self, config: MeasureConfig, progress: Progress) -> None:
        self.outcomes: dict[ProfileKey, Profile | Failure] = {}
        self._jobs = config.jobs
        self._keys = [key for job in config.jobs for key in job.keys]
        self._events, self._current = Path(config.events), Path(config.current)
        self._progress = progress
        self._read = 0
        self._loading: set[ProfileKey] = set()

    def follow(self, spec: WorkerSpec, patience: float) -> None:
        """Until the process ends, or is ended because one candidate keeps it longer than `patience` seconds."""
        begun = time.time()
        worker = start(spec)
        late = False
        try:
            while worker.alive() and not late:
                time.sleep(POLL_SECONDS)
                self._hear()
                late = time.time() - self._last_sign(begun) > patience
            if late:
                worker.kill()
            status = worker.stop()
            self._hear()
            self._blame(f"did not end within {patience:g} s" if late else _how_it_ended(status, worker))
        finally:
            worker.stop()

    def _last_sign(self, begun: float) -> float:
        try:
            return self._current.stat().st_mtime
        except FileNotFoundError:
            return begun

    def _hear(self) -> None:
        """Take in what was told since the last time."""
        with suppress(FileNotFoundError), self._events.open("rb") as file:
            file.seek(self._read)
            for line in file.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    self._read += len(line)
                    self._take(msgspec.json.decode(line, type=Told))

    def _take(self, told: Told) -> None:
        key = self._keys[told.candidate]
        (self._loading.add if told.state == "loading" else self._loading.discard)(key)
        if told.state == "failed":
            self.outcomes[key] = Failure(key=key, reason=told.reason)
        elif told.state == "done":
            self.outcomes[key] = Profile(
                key=key,
                median=told.median,
                low=told.low,
                high=told.high,
                rounds=told.rounds,
                memory=told.memory,
                taken=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        self._progress(key, told.state)

    def _blame(self, how: str) -> None:
        """Where outcomes are missing, the candidate that was at work is the reason; the others are for another process."""
        missing = [key for key in self._keys if key not in self.outcomes]
        if not missing:
            return
        text = self._current.read_text().strip() if self._current.exists() else ""
        culprit = self._keys[int(text)] if text else None
        guilty = [key for key in missing if key == culprit]
        if culprit in self._loading:
            guilty = [key for job in self._jobs for key in job.keys if culprit in job.keys and key in missing]
        doing = "being loaded" if culprit in self._loading else "being timed"
        for key in guilty or missing:
            reason = f"its process {how} while it was {doing}" if guilty else f"the measuring process {how}"
            self.outcomes[key] = Failure(key=key, reason=reason)
            self._progress(key, "failed")


def _how_it_ended(status: int, worker: Worker) -> str:
    if status < 0:
        return f"was ended by signal {-status} ({signal.Signals(-status).name})"
    last = (worker.log_tail(lines=1) or "it said nothing").strip()
    return f"ended with status {status} ({last})"


def _without(job: MeasureJob, outcomes: Mapping[ProfileKey, object]) -> MeasureJob:
    return msgspec.structs.replace(job, keys=tuple(key for key in job.keys if key not in outcomes))


def check_jobs(jobs: Sequence[MeasureJob], device: str, cluster: Cluster) -> None:
    """Raise InputError for jobs that are empty, asked for twice, or not of this kind of device."""
    kind, threads = device_kind(cluster, device), max(1, len(cluster.device(device).cores))
    seen: set[ProfileKey] = set()
    for job in jobs:
        if not job.keys or not job.pieces:
            raise InputError(f"a job has {len(job.keys)} keys and {len(job.pieces)} pieces, expected at least one of each")
        for key in job.keys:
            wanted = (job.backend, kind, threads)
            if (key.backend, key.kind, key.threads) != wanted:
                raise InputError(
                    f"key of {key.backend} on {key.kind!r} with {key.threads} threads in a job for `{device}`, expected "
                    f"{job.backend} on {kind!r} with {threads} threads"
                )
            if key in seen:
                raise InputError(f"program {key.program[:12]} at {dict(key.sizes)} is asked for twice, expected each key once")
            seen.add(key)
