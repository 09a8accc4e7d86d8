"""Drive a stitched program from outside: start one process a device, send inputs, take results. No framework here.

Used by the SDK and the commands. A Session owns its processes; a device that dies is told by name with the end of its log.
"""

from __future__ import annotations

import os
import selectors
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a Session runs: regions by device, their order, the program's inputs, results and states, and the least and most
    of its sizes. `initial` holds the first value of each state under its name; without it a state begins at zero."""

    devices: tuple[tuple[str, tuple[RegionConfig, ...]], ...]
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


class Session:
    """Processes that hold the regions of one program. Use as `with`, or call `close`. One run at a time."""

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
        self.loaded: dict[str, Loaded] = {}
        self._home = {region.id: device for device, regions in plan.devices for region in regions}
        self._regions = {region.id: region for _, regions in plan.devices for region in regions}
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

    def run(self, inputs: Mapping[str, Array], *, keep: Sequence[str] = ()) -> Outcome:
        """The whole program on these inputs; `keep` names values beside the results to be brought back.

        Raises InputError for a missing input or a shape that does not fit, DeviceError where a region fails.
        """
        sizes = self.sizes_of(inputs)
        return self._run(self._plan.order, inputs, sizes, tuple(dict.fromkeys((*self._plan.results, *keep))))

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
        """The process of each device."""
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
        sockets = {device: str(self._directory / f"{index}.sock") for index, (device, _) in enumerate(self._plan.devices)}
        for device, regions in self._plan.devices:
            held = cluster.device(device)
            config = RunDeviceConfig(
                device=device,
                key=self._key,
                socket=sockets[device],
                peers=sockets,
                regions=regions,
                states=self._plan.states,
                initial=self._plan.initial,
            )
            spec = WorkerSpec(
                name=device,
                program="inlay.runtime.device:main",
                run_directory=str(self._directory),
                config=msgspec.to_builtins(config, builtin_types=(bytes,)),
                cores=tuple(core for core in held.cores if core in os.sched_getaffinity(0)),
                threads=max(1, len(held.cores)),
                environment=self._environment,
            )
            self._workers[device] = start(spec)
            self._door.connect(device, Path(sockets[device]), kind=STAGE, seconds=LOAD_SECONDS)

    def _await_loaded(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(self.loaded) < len(self._plan.devices):
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
        run, self._next_run = self._next_run, self._next_run + 1
        key = (tuple(regions), wanted)
        if key not in self._routes:
            self._routes[key] = self._route(regions, wanted)
        route = self._routes[key]
        begun = time.perf_counter()
        for device, mine, send in route.begins:  # the first device can begin before the others are told
            self._tell(device, Begin(run=run, sizes=dict(sizes), regions=mine, send=send))
            for name in route.inputs[device]:
                self._senders[device].send(values[name], name=name, run=run)
        outcome = self._collect(run, regions, route.wanted)
        found = {**{name: values[name] for name in wanted if name not in route.wanted}, **outcome.values}
        return msgspec.structs.replace(outcome, values=found, seconds=time.perf_counter() - begun)

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

    def _collect(self, run: int, regions: Sequence[str], wanted: Sequence[str]) -> Outcome:
        """Everything that devices tell of a run until all are done; `seconds` of it is for the caller to say."""
        values: dict[str, Array] = {}
        seconds: dict[str, float] = {}
        moved: dict[str, int] = {}
        waiting = {self._home[region] for region in regions}
        failure: RunError | None = None
        deadline = time.monotonic() + RUN_SECONDS
        while waiting or (failure is None and set(wanted) - set(values)):
            self._check(deadline, f"run {run}")
            for device, message in self._messages():
                match message:
                    case NamedArray(run=number) if number == run:
                        values[message.name] = message.array
                    case RunDone(run=number) if number == run:
                        waiting.discard(device)
                        seconds.update(message.seconds)
                        moved.update(message.moved)
                    case RunError(run=number) if number == run:
                        waiting.discard(device)
                        failure = failure or message
                    case _:
                        continue
        if failure is not None:
            raise error_class(failure.code)(f"region {failure.region} on {failure.device}: {failure.message}")
        return Outcome(values=values, seconds=0.0, regions=seconds, moved=moved)

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
