"""Drive a stitched program from outside: start its processes, send inputs, take results. No framework here.

A device has one process, and one more for each environment that regions on it need: "device" below is one of these.
Used by the SDK and the commands. A Session owns its processes; one that dies is told by name with the end of its log.
"""

from __future__ import annotations

import os
import selectors
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from inlay.backends import Array
from inlay.errors import ArtifactError, DeviceError, DeviceLostError, InputError, TransferError, error_class
from inlay.graph import State, Tensor, solve_sizes
from inlay.hardware import Cluster
from inlay.runtime.device import RegionConfig, RunDeviceConfig
from inlay.specs.artifact import WeightMap
from inlay.specs.run import DRIVER, Begin, DeviceToDriver, DriverToDevice, Loaded, LoadFailed, RunDone, RunError, StopRuns
from inlay.transport import (
    CONTROL_FRAME,
    STAGE,
    Channel,
    Door,
    NamedArray,
    RunFailed,
    TensorAssembler,
    TensorSender,
    create_key,
)
from inlay.workers import Worker, WorkerSpec, start, stop_all

LOAD_SECONDS = 300.0
RUN_SECONDS = 600.0
POLL_SECONDS = 0.0002
QUIET_SECONDS = 0.2
"""Of silence, after which it is asked whether all processes live."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process on the cores of a device. Its name is the device's, or DEVICE/ENVIRONMENT in an environment of its own."""

    name: str
    device: str
    python: str = sys.executable
    regions: tuple[RegionConfig, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a Session runs: processes with their regions, the order of these, the program's inputs, results and states, and
    the least and most of its sizes. `initial` holds the first value of each state under its name; without it a state begins
    at zero."""

    processes: tuple[Process, ...]
    order: tuple[str, ...]
    inputs: dict[str, Tensor]
    results: tuple[str, ...]
    states: tuple[State, ...] = ()
    initial: WeightMap | None = None
    ranges: dict[str, tuple[int, int]] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Results of one run by value name, seconds from the first byte sent to the last one read, seconds by region, and the
    bytes of each value that went from device to device (not those to and from the driver)."""

    values: dict[str, Array]
    seconds: float
    regions: dict[str, float]
    moved: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Route:
    """What a kind of run asks of each device, and the values that the driver sends it; `wanted` of them come back."""

    begins: tuple[tuple[str, tuple[str, ...], dict[str, tuple[str, ...]]], ...]
    inputs: dict[str, tuple[str, ...]]
    wanted: tuple[str, ...]


@dataclass(slots=True)
class OpenRun:
    """A run under way: when it began, the processes that have not ended it, the values that have not come, and what came."""

    begun: float
    waiting: set[str]
    lacking: set[str]
    values: dict[str, Array]
    seconds: dict[str, float] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    failure: RunError | None = None


class Session:
    """Processes that hold the regions of one program. Use as `with`, or call `close`. One run, or one stream of runs, at a
    time."""

    def __init__(
        self, plan: Plan, *, cluster: Cluster, seconds: float = LOAD_SECONDS, environment: Mapping[str, str] | None = None
    ) -> None:
        self._plan = plan
        self._environment = dict(environment or {})
        self._directory = Path(tempfile.mkdtemp(prefix="inlay-run-"))
        self._key = create_key()
        self._door = Door(self._directory / "driver.sock", name=DRIVER, key=self._key, kinds=(STAGE,))
        self._workers: dict[str, Worker] = {}
        self._channels: dict[str, Channel] = {}
        self._senders: dict[str, TensorSender] = {}
        self._assemblers: dict[str, TensorAssembler] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door, selectors.EVENT_READ)
        self._ready: dict[str, None] = {}
        self._routes: dict[tuple[object, ...], Route] = {}
        self._decode = msgspec.msgpack.Decoder(DeviceToDriver).decode
        self._next_run = 0
        self._open: dict[int, OpenRun] = {}
        self.loaded: dict[str, Loaded] = {}
        self._home = {region.id: process.name for process in plan.processes for region in process.regions}
        self._regions = {region.id: region for process in plan.processes for region in process.regions}
        try:
            self._start(cluster)
            self._await_loaded(seconds)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, inputs: Mapping[str, Array], *, keep: Sequence[str] = (), order: Sequence[str] = ()) -> Outcome:
        """The whole program on these inputs; `keep` names values beside the results to be brought back.

        `order` names the regions that do it, where a plan holds regions that are alternatives. Raises InputError for a region
        that is not there, a missing input or a shape that does not fit, DeviceError where a region fails.
        """
        strange = next((region for region in order if region not in self._regions), None)
        if strange is not None:
            raise InputError(f"region {strange!r} is not there, expected: {', '.join(self._regions)}", hint="correct its name")
        sizes = self.sizes_of(inputs)
        wanted = tuple(dict.fromkeys((*self._plan.results, *keep)))
        return self._run(tuple(order) or self._plan.order, inputs, sizes, wanted)

    def run_region(self, region: str, values: Mapping[str, Array], sizes: Mapping[str, int]) -> Outcome:
        """One region alone on the values given, all that it gives brought back."""
        pieces = self._regions[region].pieces
        return self._run((region,), values, sizes, tuple(dict.fromkeys(name for piece in pieces for name in piece.outputs)))

    def sizes_of(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """The sizes of a run from its inputs. Raises InputError naming what is missing, unknown or of another shape."""
        states = {state.input for state in self._plan.states}
        wanted = {name: tensor for name, tensor in self._plan.inputs.items() if name not in states}
        for name in wanted:
            if name not in inputs:
                raise InputError(f"input {name!r} is missing, given are: {', '.join(sorted(inputs)) or 'none'}", hint="add it")
        strange = sorted(set(inputs) - set(wanted))
        if strange:
            raise InputError(f"input {strange[0]!r} is not known, expected: {', '.join(wanted)}", hint="remove it")
        for name, tensor in wanted.items():
            if inputs[name].dtype.name != tensor.dtype:
                raise InputError(f"input {name!r} is {inputs[name].dtype.name}, expected {tensor.dtype}", hint="cast it")
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        sizes = solve_sizes({name: tensor.shape for name, tensor in wanted.items()}, shapes)
        for name, size in sizes.items():
            low, high = self._plan.ranges.get(name, (size, size))
            if not low <= size <= high:
                raise InputError(f"size {name} is {size}, expected {low} to {high}", hint="compile with a wider range, or pad")
        return sizes

    @property
    def pids(self) -> dict[str, int]:
        """The number of each process by its name."""
        return {device: worker.pid for device, worker in self._workers.items()}

    def close(self) -> None:
        """End all processes; safe to call twice."""
        for channel in self._channels.values():
            self._say_stop(channel)
        stop_all(list(self._workers.values()), 5.0)
        for channel in self._channels.values():
            channel.close()
        if self._workers or self._directory.exists():
            self._door.close()
        self._workers, self._channels = {}, {}
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, cluster: Cluster) -> None:
        sockets = {item.name: str(self._directory / f"{index}.sock") for index, item in enumerate(self._plan.processes)}
        for process in self._plan.processes:
            held, name = cluster.device(process.device), process.name
            config = RunDeviceConfig(
                device=name,
                key=self._key,
                socket=sockets[name],
                peers=sockets,
                regions=process.regions,
                states=self._plan.states,
                initial=self._plan.initial,
            )
            spec = WorkerSpec(
                name=name,
                program="inlay.runtime.device:main",
                run_directory=str(self._directory),
                config=msgspec.to_builtins(config, builtin_types=(bytes,)),
                python=process.python,
                cores=tuple(core for core in held.cores if core in os.sched_getaffinity(0)),
                threads=max(1, len(held.cores)),
                environment=self._environment,
            )
            self._workers[name] = start(spec)
            self._door.connect(name, Path(sockets[name]), kind=STAGE, seconds=LOAD_SECONDS)

    def _await_loaded(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(self.loaded) < len(self._plan.processes):
            self._check(deadline, "loading")
            for device, message in self._messages():
                match message:
                    case Loaded():
                        self.loaded[device] = message
                    case LoadFailed(code=code, message=text, hint=hint):
                        raise error_class(code)(f"{device}: {text}", hint=hint)
                    case _:
                        raise DeviceError(f"{device} began with {type(message).__name__}, expected Loaded")

    def _run(
        self, regions: Sequence[str], values: Mapping[str, Array], sizes: Mapping[str, int], wanted: tuple[str, ...]
    ) -> Outcome:
        number = self._begin(regions, values, sizes, wanted)
        try:
            return self._end(number, f"run {number}")
        finally:
            self._open.clear()

    def stream(self, inputs: Iterable[Mapping[str, Array]], *, depth: int | None = None) -> Iterator[Outcome]:
        """The whole program on one set of inputs after another, results in the same order.

        While one device works at a set the device before it is at the next one: `depth` sets (one more than there are
        processes by default) are under way at once, and no further one is taken from `inputs` until a result was taken. Given
        arrays may be changed once the next set is asked for. Raises as `run` does, naming the set by its number from 0; what
        was under way then is dropped, and the session can be used again.
        """
        most = len(self._plan.processes) + 1 if depth is None else depth
        if most < 1:
            raise InputError(f"depth is {most}, expected at least 1", hint="leave it out for one more than there are processes")
        under_way: deque[tuple[int, int]] = deque()
        try:
            for position, given in enumerate(inputs):
                if len(under_way) >= most:
                    yield self._end(*_named(under_way.popleft()))
                try:
                    sizes = self.sizes_of(given)
                except InputError as error:
                    raise InputError(f"set {position}: {error.message}", hint=error.hint) from error
                number = self._begin(self._plan.order, given, sizes, self._plan.results)
                for sender in self._senders.values():
                    sender.own()
                under_way.append((number, position))
            while under_way:
                yield self._end(*_named(under_way.popleft()))
        finally:
            self._open.clear()

    def _begin(
        self, regions: Sequence[str], values: Mapping[str, Array], sizes: Mapping[str, int], wanted: tuple[str, ...]
    ) -> int:
        """Tell all devices of a run and send its inputs; the number of the run."""
        run, self._next_run = self._next_run, self._next_run + 1
        key = (tuple(regions), wanted)
        if key not in self._routes:
            self._routes[key] = self._route(regions, wanted)
        route = self._routes[key]
        given = {name: values[name] for name in wanted if name not in route.wanted}
        waiting = {self._home[region] for region in regions}
        self._open[run] = OpenRun(time.perf_counter(), waiting, set(route.wanted), dict(given))
        for device, mine, send in route.begins:  # the first device can begin before the others are told
            self._tell(device, Begin(run=run, sizes=dict(sizes), regions=mine, send=send))
            for name in route.inputs[device]:
                self._senders[device].send(values[name], name=name, run=run)
        return run

    def _end(self, number: int, what: str) -> Outcome:
        """Wait until a run is over. Raises what failed in it."""
        run, deadline = self._open[number], time.monotonic() + RUN_SECONDS
        while run.waiting or (run.failure is None and run.lacking):
            self._check(deadline, what)
            self._absorb()
        del self._open[number]
        if run.failure is not None:
            found = run.failure
            where = f"region {found.region} on {found.device}: {found.message}"
            raise error_class(found.code)(where if what == f"run {number}" else f"{what}: {where}")
        seconds = time.perf_counter() - run.begun
        return Outcome(values=run.values, seconds=seconds, regions=run.seconds, moved=run.moved)

    def _absorb(self) -> None:
        """Take in what devices tell of the runs that are under way; of others it is dropped."""
        for device, message in self._messages():
            number = getattr(message, "run", -1)
            run = self._open.get(number)
            if run is None:
                continue
            match message:
                case NamedArray():
                    run.values[message.name] = message.array
                    run.lacking.discard(message.name)
                case RunDone():
                    run.waiting.discard(device)
                    run.seconds.update(message.seconds)
                    run.moved.update(message.moved)
                case RunError():
                    run.waiting.discard(device)
                    run.failure = run.failure or message

    def _route(self, regions: Sequence[str], wanted: Sequence[str]) -> Route:
        given = {name: region for region in regions for piece in self._regions[region].pieces for name in piece.outputs}
        needs = self._needs(regions, given)
        begins, inputs = [], {}
        for device in dict.fromkeys(self._home[region] for region in regions):
            send: dict[str, tuple[str, ...]] = {}
            for name, region in given.items():
                to = (*(item for item in needs.get(name, ()) if item != device), *([DRIVER] if name in wanted else []))
                if to and self._home[region] == device:
                    send[name] = to
            begins.append((device, tuple(region for region in regions if self._home[region] == device), send))
            inputs[device] = tuple(name for name, devices in needs.items() if name not in given and device in devices)
        return Route(tuple(begins), inputs, tuple(name for name in wanted if name in given))

    def _needs(self, regions: Sequence[str], given: Mapping[str, str]) -> dict[str, list[str]]:
        """The devices that read each value from outside themselves; states are theirs alone."""
        states = {state.input for state in self._plan.states}
        needs: dict[str, list[str]] = {}
        for region in regions:
            device = self._home[region]
            for piece in self._regions[region].pieces:
                for name in piece.inputs:
                    local = name in given and self._home[given[name]] == device
                    if not local and name not in states and device not in needs.setdefault(name, []):
                        needs[name].append(device)
        return needs

    def _check(self, deadline: float, what: str) -> None:
        """Wait a moment for anything to happen. Raises when a device has died or the time is over."""
        waits = any(item.waiting for item in self._senders.values())
        events = self._selector.select(0.0 if self._ready else POLL_SECONDS if waits else QUIET_SECONDS)
        for key, _ in events:
            if key.fileobj is self._door:
                self._meet()
            else:
                self._ready[key.data] = None
        for sender in self._senders.values():
            sender.flush()
        if time.monotonic() > deadline:
            raise DeviceError(f"{what} took too long", hint="see the log of the device")
        if not self._ready:  # a process that dies closes its channel, if it had one
            for device, worker in self._workers.items():
                if not worker.alive() and not self._has_more(device):
                    raise worker.lost()

    def _meet(self) -> None:
        for arrival in self._door.take():
            if arrival.channel is not None:
                self._channels[arrival.peer] = arrival.channel
                self._senders[arrival.peer] = TensorSender(arrival.channel)
                self._assemblers[arrival.peer] = TensorAssembler()
                self._selector.register(arrival.channel, selectors.EVENT_READ, arrival.peer)

    def _has_more(self, device: str) -> bool:
        """A process that told why it ends may end before it is heard."""
        return device in self._channels and device not in self.loaded

    def _messages(self) -> list[tuple[str, DeviceToDriver | NamedArray | RunFailed]]:
        """What the devices that have something have told. One that has gone is an error once all before it was heard."""
        found: list[tuple[str, DeviceToDriver | NamedArray | RunFailed]] = []
        for device in list(self._ready):
            try:
                while (frame := self._channels[device].receive()) is not None:
                    if frame.kind == CONTROL_FRAME:
                        found.append((device, self._decode(frame.header)))
                    elif (value := self._assemblers[device].take(frame)) is not None:
                        found.append((device, value))
            except TransferError as error:
                if not found:
                    raise self._gone(device, error) from error
                break
            del self._ready[device]
        return found

    def _gone(self, device: str, error: TransferError) -> DeviceLostError:
        worker = self._workers[device]
        deadline = time.monotonic() + 2.0
        while worker.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        return worker.lost() if not worker.alive() else DeviceLostError(f"{device} has gone: {error.message}")

    def _tell(self, device: str, message: DriverToDevice) -> None:
        header = msgspec.msgpack.encode(message)
        deadline = time.monotonic() + RUN_SECONDS
        while self._senders[device].waiting or not self._channels[device].send(CONTROL_FRAME, header):
            self._check(deadline, f"telling {device}")
            self._absorb()  # it may be waiting for us to read

    def _say_stop(self, channel: Channel) -> None:
        try:
            channel.send(CONTROL_FRAME, msgspec.msgpack.encode(StopRuns()))
        except TransferError:
            return


def check_device(cluster: Cluster, device: str, region: str) -> None:
    """Raise ArtifactError for a device of a plan that this cluster does not have."""
    if device not in cluster.devices:
        raise ArtifactError(
            f"region {region} of the plan is for device {device!r}, which is gone; here are {sorted(cluster.devices)}",
            hint="compile again for this cluster, or give the cluster file with --cluster",
        )


def _named(item: tuple[int, int]) -> tuple[int, str]:
    number, position = item
    return number, f"set {position}"
