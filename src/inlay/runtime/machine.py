"""Measures the devices of this machine and the ways between them, and keeps the figures. Called by `api`.

One device of each kind and one pair of each pair of kinds is measured, each figure in a process of its own, one at a time. What
the figures mean is in `specs.roofline`; what is timed in `runtime.roofline`, `runtime.torch_products` and `runtime.messages`.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import combinations_with_replacement
from pathlib import Path

import msgspec

from inlay.errors import ArtifactError, DeviceError, InlayError
from inlay.hardware import Cluster, Device, check_local, device_kind, local_chip, memory_relation
from inlay.runtime.cache import Cache
from inlay.runtime.intervals import quartiles
from inlay.runtime.kept import Figures, link_path, profile_path, read_figures, write_figures
from inlay.runtime.messages import LARGE, SMALL, Taken
from inlay.runtime.roofline import NUMPY_PRODUCTS, Measured, RooflineConfig
from inlay.specs.roofline import MEMORY, PRODUCTS, DeviceProfile, MachineFigures, MeasuredLink, Spread
from inlay.workers import Worker, WorkerSpec, start, stop_all

LOCAL_NODE = "local"
PATIENCE = 120.0
POLL_SECONDS = 0.02
BUSY = 0.5  # threads that want to run, for each core
TORCH_PRODUCTS = tuple(dtype for dtype in PRODUCTS if dtype not in NUMPY_PRODUCTS)
Progress = Callable[[str], object]


def kept_figures(cluster: Cluster, *, cache: Cache) -> MachineFigures:
    """What was measured before of devices like these on a machine like this one. Measures nothing, never raises."""
    machine = _Machine(cluster, cache)
    return machine.figures(machine.read())


def measure_figures(
    cluster: Cluster, *, cache: Cache, anew: bool = True, progress: Progress = lambda text: None
) -> MachineFigures:
    """Measure every kind of local device and pair of kinds, or with `anew=False` only what is not kept, and keep it.

    A kept file that is damaged is told to `progress` by name and replaced. What cannot be measured is absent with its
    reason, the rest goes on. `progress` is told each step as it begins. Raises ClusterError for cores that are not here,
    ArtifactError where the cache cannot be written. Call it from a thread that lives until it returns.
    """
    check_local(cluster)
    machine = _Machine(cluster, cache)
    kept = machine.read()
    for told in kept.damaged:
        progress(f"{told}: measuring it again")
    held = _Kept() if anew else kept
    devices = [device for kind, device in machine.kinds.items() if kind not in held.profiles]
    pairs = [(way, ends) for way, ends in machine.ways.items() if way not in held.links]
    if machine.load > BUSY * len(os.sched_getaffinity(0)):
        progress(f"the machine is busy (load {machine.load:.1f}): figures will be lower than it can do")
    steps = [text for device in devices for text, *_ in _device_steps(device.name)]
    counter = _Counter(len(steps) + len(pairs), progress)
    for device in devices:
        profile = _measure_device(machine, device, counter)
        write_figures(machine.profile_path(profile.kind), profile)
        held.profiles[profile.kind] = profile
    for way, ends in pairs:
        counter(f"messages {'within' if ends[0] is ends[1] else 'between'} {' and '.join(dict.fromkeys(d.name for d in ends))}")
        try:
            link = _measure_link(way, ends, machine.load)
        except InlayError as error:
            progress(f"messages between {ends[0].name} and {ends[1].name} could not be measured: {error.message}")
            continue
        write_figures(machine.link_path(way), link)
        held.links[way] = link
    return machine.figures(_Kept(profiles=held.profiles, links=held.links))


@dataclass(frozen=True, order=True)
class _Way:
    """A pair of kinds and how near their devices are: what a link is measured once for."""

    kinds: tuple[str, str]
    relation: str


@dataclass
class _Kept:
    """Figures by what they belong to, and what was found damaged."""

    profiles: dict[str, DeviceProfile] = field(default_factory=dict)
    links: dict[_Way, MeasuredLink] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


class _Counter:
    """Tells each step with its number."""

    def __init__(self, steps: int, progress: Progress) -> None:
        self._steps, self._progress = steps, progress
        self._begun = 0

    def __call__(self, text: str) -> None:
        self._begun += 1
        self._progress(f"[{self._begun}/{self._steps}] {text}")


class _Machine:
    """The local devices of a cluster: one of each kind, one pair of each way, and the rest with the reason."""

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        self.cluster, self._cache = cluster, cache
        self.chip = local_chip()
        self.load = os.getloadavg()[0]  # before anything of ours runs
        self.absent: dict[str, str] = {}
        self._local: list[Device] = []
        for device in cluster.devices.values():
            chip = cluster.chips.get(device.chip)
            if device.node != LOCAL_NODE:
                self.absent[device.name] = f"not measured: it is on node {device.node}, not on this machine"
            elif chip is not None and chip.kind != "cpu":
                self.absent[device.name] = f"not measured: it is a {chip.kind}, and only CPUs are measured here"
            else:
                self._local.append(device)
        self.kinds = {device_kind(cluster, device.name): device for device in reversed(self._local)}
        self.kinds = dict(sorted(self.kinds.items()))
        self.ways = self._find_ways()

    def profile_path(self, kind: str) -> Path:
        """Where the profile of a kind is kept."""
        return profile_path(self._cache.root, kind=kind, chip=self.chip)

    def link_path(self, way: _Way) -> Path:
        """Where the link of a way is kept."""
        return link_path(self._cache.root, kinds=way.kinds, relation=way.relation, chip=self.chip)

    def read(self) -> _Kept:
        """What is kept, with each damaged file in a sentence."""
        kept = _Kept()
        for kind in self.kinds:
            profile = _read(self.profile_path(kind), DeviceProfile, kept.damaged)
            if profile is not None:
                kept.profiles[kind] = profile
        for way in self.ways:
            link = _read(self.link_path(way), MeasuredLink, kept.damaged)
            if link is not None:
                kept.links[way] = link
        return kept

    def figures(self, kept: _Kept) -> MachineFigures:
        """As deciders and people see it."""
        kinds = {device.name: device_kind(self.cluster, device.name) for device in self._local}
        missing = {name: "not measured yet" for name, kind in kinds.items() if kind not in kept.profiles}
        return MachineFigures(
            profiles={name: kept.profiles[kind] for name, kind in kinds.items() if kind in kept.profiles},
            links=tuple(kept.links[way] for way in sorted(kept.links)),
            absent={**self.absent, **missing},
            damaged=tuple(kept.damaged),
        )

    def _find_ways(self) -> dict[_Way, tuple[Device, Device]]:
        """The pair that each way is measured between: the first one that shares no core, where there is such."""
        found: dict[_Way, tuple[Device, Device]] = {}
        for one, other in combinations_with_replacement(self._local, 2):
            first, second = sorted((one, other), key=lambda device: device_kind(self.cluster, device.name))
            kinds = (device_kind(self.cluster, first.name), device_kind(self.cluster, second.name))
            way = _Way(kinds, memory_relation(self.cluster, first.name, second.name))
            before = found.get(way)
            if before is None or (set(before[0].cores) & set(before[1].cores) and not set(first.cores) & set(second.cores)):
                found[way] = (first, second)
        return dict(sorted(found.items()))


def _read(path: Path, kind: type[Figures], damaged: list[str]) -> Figures | None:
    try:
        return read_figures(path, kind)
    except ArtifactError as error:
        damaged.append(error.message)
        return None


def _device_steps(name: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """What is told, the program, and the figures it measures, for each process of a device."""
    numpy, torch = "inlay.runtime.roofline:main", "inlay.runtime.torch_products:main"
    return [
        (f"{name}: matrix products in {' and '.join(NUMPY_PRODUCTS)} (numpy)", numpy, NUMPY_PRODUCTS),
        (f"{name}: memory", numpy, ("memory",)),
        (f"{name}: matrix products in {' and '.join(TORCH_PRODUCTS)} (torch)", torch, TORCH_PRODUCTS),
    ]


def _measure_device(machine: _Machine, device: Device, counter: _Counter) -> DeviceProfile:
    threads = max(1, len(device.cores))
    found: list[Measured] = []
    for text, program, figures in _device_steps(device.name):
        counter(text)
        named = MEMORY if figures == ("memory",) else figures
        if figures == TORCH_PRODUCTS and find_spec("torch") is None:
            found.append(Measured(absent=dict.fromkeys(named, "not measured: torch is not installed")))
            continue
        try:
            found.append(_ask(device, program, figures, threads))
        except InlayError as error:
            found.append(Measured(absent=dict.fromkeys(named, error.message)))
    rates = {name: rate for item in found for name, rate in item.rates.items()}
    return DeviceProfile(
        kind=device_kind(machine.cluster, device.name),
        device=device.name,
        chip=machine.chip,
        load=machine.load,
        cores=len(device.cores),
        threads=threads,
        products={name: rates[name] for name in PRODUCTS if name in rates},
        sides={name: side for item in found for name, side in item.sides.items()},
        memory={name: rates[name] for name in MEMORY if name in rates},
        array=max(item.array for item in found),
        cache=max(item.cache for item in found),
        absent={name: reason for item in found for name, reason in item.absent.items()},
        versions={name: version for item in found for name, version in item.versions.items()},
        taken=_now(),
    )


def _ask(device: Device, program: str, figures: tuple[str, ...], threads: int) -> Measured:
    """One process that measures these figures. Raises DeviceError with the reason where it does not."""
    with tempfile.TemporaryDirectory(prefix="inlay-measure-") as directory:
        result = Path(directory) / "result.json"
        config = msgspec.to_builtins(RooflineConfig(figures=figures, result=str(result), threads=threads))
        spec = WorkerSpec(
            name=f"measure {device.name}",
            program=program,
            run_directory=directory,
            config=config,
            cores=device.cores,
            threads=threads,
        )
        worker = start(spec)
        try:
            _wait([worker], until=worker)
            return msgspec.json.decode(_result(result, worker), type=Measured)
        finally:
            worker.stop()


def _measure_link(way: _Way, ends: tuple[Device, Device], load: float) -> MeasuredLink:
    """Two processes, one on each device (or both on one). Raises DeviceError with the reason where one does not answer."""
    with tempfile.TemporaryDirectory(prefix="inlay-measure-") as directory:
        result = Path(directory) / "result.json"
        workers: list[Worker] = []
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                for program, device, sock in (("echo", ends[1], theirs), ("send", ends[0], ours)):
                    config = {"socket": sock.fileno(), "result": str(result)}
                    spec = WorkerSpec(
                        name=f"{program} {device.name}",
                        program=f"inlay.runtime.messages:{program}",
                        run_directory=directory,
                        config=config if program == "send" else {"socket": sock.fileno()},
                        cores=device.cores,
                    )
                    workers.append(start(spec, pass_descriptors=[sock.fileno()]))
                ours.close()
                theirs.close()
                _wait(workers, until=workers[1])
                taken = msgspec.json.decode(_result(result, workers[1]), type=Taken)
            finally:
                stop_all(workers)
    small, large = _durations(taken.small), _durations(taken.large)
    if large.median <= small.median:
        raise DeviceError(f"a message of {LARGE} bytes took {large.median:.2g} s and one of {SMALL} bytes {small.median:.2g} s")
    bandwidth = (LARGE - SMALL) / (large.median - small.median)
    return MeasuredLink(
        ends=(ends[0].name, ends[1].name),
        kinds=way.kinds,
        relation=way.relation,
        load=load,
        small_bytes=SMALL,
        small=small,
        large_bytes=LARGE,
        large=large,
        latency=max(0.0, small.median - SMALL / bandwidth),
        bandwidth=bandwidth,
        taken=_now(),
    )


def _wait(workers: Sequence[Worker], *, until: Worker) -> None:
    """Until that one has ended. Raises DeviceError when it takes too long; whoever started them stops them."""
    end = time.monotonic() + PATIENCE
    while until.alive():
        if time.monotonic() > end:
            raise DeviceError(f"process `{until.spec.name}` did not end within {PATIENCE:g} s", hint="is the machine busy?")
        time.sleep(POLL_SECONDS)


def _result(path: Path, worker: Worker) -> bytes:
    if worker.exit_status() != 0 or not path.exists():
        last = (worker.log_tail(lines=1) or "it said nothing").strip()
        raise DeviceError(f"process `{worker.spec.name}` ended with status {worker.exit_status()} ({last})")
    return path.read_bytes()


def _durations(seconds: Sequence[float]) -> Spread:
    low, median, high = quartiles(seconds)
    return Spread(best=min(seconds), median=median, low=low, high=high, samples=len(seconds))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
