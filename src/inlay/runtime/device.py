"""The process of one device of a stitched program: loads its regions, runs them as values arrive, passes values on.

Started by `runtime.session` through `workers`. It maps only the frameworks of its own regions and obeys the driver; values
come and go through shared memory. A run that fails is told to whoever waits for its values, and the next run works.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends import Array, map_weights
from inlay.errors import DeviceError, InlayError, TransferError
from inlay.graph import State
from inlay.runtime.load import load_executable
from inlay.runtime.stitch import LoadedPiece, Stitched
from inlay.specs.artifact import WeightMap
from inlay.specs.run import (
    DRIVER,
    Begin,
    DeviceToDriver,
    DriverToDevice,
    Loaded,
    LoadFailed,
    RunDone,
    RunError,
    StopRuns,
)
from inlay.transport import CONTROL_FRAME, STAGE, Arrival, Channel, Door, NamedArray, RunFailed, TensorAssembler, TensorSender

POLL_SECONDS = 0.0002
CONNECT_SECONDS = 60.0
KINDS_OF_RUNS = 64
log = logging.getLogger("inlay.runtime")


class PieceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A piece to load: its artifact's folder, its weights, and the values that pass its ports."""

    name: str
    directory: str
    weights: WeightMap
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class RegionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A region of this device: pieces in order, all of one backend."""

    id: str
    backend: str
    threads: int
    pieces: tuple[PieceConfig, ...]
    options: dict[str, str] = {}


class RunDeviceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with. `peers` maps the driver and the other devices to their sockets."""

    device: str
    key: bytes
    socket: str
    peers: dict[str, str]
    regions: tuple[RegionConfig, ...]
    states: tuple[State, ...] = ()
    initial: WeightMap | None = None


def main(config: dict[str, Any]) -> None:
    """The program of the process; returns when the driver says stop or has gone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    RunDevice(msgspec.convert(config, RunDeviceConfig)).run()


@dataclass(frozen=True, slots=True)
class Task:
    """A region of a run: its pieces, the values it needs from outside, and where what it gives goes."""

    region: str
    span: tuple[int, int]
    needs: tuple[str, ...]
    sends: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(slots=True)
class Open:
    """A run at work: what it must do, values that arrived (None: written where they are read), and the task it is at."""

    begin: Begin
    tasks: tuple[Task, ...]
    arrived: dict[str, Array | None] = field(default_factory=dict)
    at: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    failed: RunFailed | None = None
    arranged: bool = False


@dataclass(frozen=True, slots=True)
class LoadedRegions:
    """Regions of one device, stitched: the pieces of each (first and end), and what its framework says of itself."""

    stitched: Stitched
    spans: dict[str, tuple[int, int]]
    reports: dict[str, dict[str, str]]


def load_regions(
    regions: Sequence[RegionConfig], *, states: Sequence[State] = (), initial: WeightMap | None = None
) -> LoadedRegions:
    """Load every piece into this process. The caller closes what is stitched. Raises what the backends raise. `initial` holds
    first values of states by their names."""
    pieces: list[LoadedPiece] = []
    spans: dict[str, tuple[int, int]] = {}
    reports: dict[str, dict[str, str]] = {}
    try:
        for region in regions:
            first = len(pieces)
            for item in region.pieces:
                executable = load_executable(
                    Path(item.directory),
                    weight_map=item.weights,
                    backend_name=region.backend,
                    threads=region.threads,
                    options=region.options,
                )
                reports[region.id] = dict(getattr(executable, "report", {}))
                pieces.append(LoadedPiece(item.name, executable, item.inputs, item.outputs))
            spans[region.id] = (first, len(pieces))
    except BaseException:
        Stitched(pieces).close()
        raise
    first_values = {} if initial is None else map_weights(initial, names=[state.name for state in states])
    return LoadedRegions(Stitched(pieces, states=states, initial=first_values), spans, reports)


class RunDevice:
    """The main loop: messages and values in, one region at a time, values out."""

    def __init__(self, config: RunDeviceConfig) -> None:
        self._config = config
        self._door = Door(Path(config.socket), name=config.device, key=config.key, kinds=(STAGE,))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door, selectors.EVENT_READ)
        self._channels: dict[str, Channel] = {}
        self._senders: dict[str, TensorSender] = {}
        self._assemblers: dict[str, TensorAssembler] = {}
        self._connecting: set[str] = set()
        self._unsent: deque[tuple[str, Array | RunFailed, str, int]] = deque()
        self._runs: deque[Open] = deque()
        self._early: list[NamedArray | RunFailed] = []
        self._tasks: dict[tuple[object, ...], tuple[Task, ...]] = {}
        self._stitched: Stitched | None = None
        self._spans: dict[str, tuple[int, int]] = {}
        self._running = True
        self._decode = msgspec.msgpack.Decoder(DriverToDevice).decode

    def run(self) -> None:
        """Load, tell the driver, then loop until it is over."""
        outcome = self._load()
        while self._running and DRIVER not in self._channels:
            self._wait(1.0)
        self._tell(outcome)
        while self._running and not isinstance(outcome, LoadFailed):
            self._wait(POLL_SECONDS if self._busy() else 1.0)
            while self._advance():
                self._flush()
            self._flush()
        if self._stitched is not None:
            self._stitched.close()

    def _busy(self) -> bool:
        return bool(self._unsent) or any(sender.waiting for sender in self._senders.values())

    def _load(self) -> Loaded | LoadFailed:
        began = time.monotonic()
        try:
            loaded = load_regions(self._config.regions, states=self._config.states, initial=self._config.initial)
        except InlayError as error:
            return LoadFailed(device=self._config.device, code=error.code, message=error.message, hint=error.hint)
        self._stitched, self._spans = loaded.stitched, loaded.spans
        seconds = time.monotonic() - began
        log.info("%s loaded %d pieces in %.2f s", self._config.device, len(loaded.stitched.pieces), seconds)
        return Loaded(device=self._config.device, seconds=seconds, memory=_resident(), reports=loaded.reports)

    def _wait(self, seconds: float) -> None:
        """Sleep until there is something, at most so long, and take it in."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._door:
                for arrival in self._door.take():
                    self._arrived(arrival)
            elif key.data in self._channels:
                self._read(key.data)

    def _arrived(self, arrival: Arrival) -> None:
        self._connecting.discard(arrival.peer)
        if arrival.channel is None:
            log.warning("connection with %s failed: %s", arrival.peer or "a stranger", arrival.reason)
            if arrival.peer:
                self._lost(arrival.peer, arrival.reason)
            return
        name = arrival.peer if arrival.incoming is False or arrival.peer == DRIVER else f"from {arrival.peer}"
        self._channels[name] = arrival.channel
        self._senders[name] = TensorSender(arrival.channel)
        self._assemblers[name] = TensorAssembler(copy=False)
        self._selector.register(arrival.channel, selectors.EVENT_READ, name)

    def _read(self, name: str) -> None:
        channel = self._channels[name]
        try:
            while (frame := channel.receive()) is not None:
                if name == DRIVER and frame.kind == CONTROL_FRAME:
                    self._obey(self._decode(frame.header))
                elif (value := self._assemblers[name].take(frame)) is not None:
                    self._take(value)
        except (TransferError, msgspec.DecodeError, UnicodeDecodeError) as error:
            if name == DRIVER:
                log.info("the driver has gone (%s): ending", error)
                self._running = False
            self._lost(name, str(error))

    def _lost(self, name: str, reason: str) -> None:
        channel = self._channels.pop(name, None)
        self._senders.pop(name, None)
        self._assemblers.pop(name, None)
        if channel is not None:
            self._selector.unregister(channel)
            channel.close()
        self._unsent = deque(item for item in self._unsent if item[0] != name)
        for run in self._runs:
            run.failed = run.failed or RunFailed(run=run.begin.run, code="device_lost", message=f"{name} has gone: {reason}")

    def _obey(self, message: DriverToDevice) -> None:
        if isinstance(message, StopRuns):
            self._running = False
            return
        self._runs.append(Open(message, self._tasks_of(message)))
        early, self._early = self._early, []
        for value in early:
            self._take(value)

    def _tasks_of(self, begin: Begin) -> tuple[Task, ...]:
        """What a run asks of each region. Runs are alike, so this is worked out once."""
        key = (begin.regions, tuple(begin.send.items()))
        found = self._tasks.get(key)
        if found is None and self._stitched is not None:
            pieces = {region: self._stitched.pieces[slice(*self._spans[region])] for region in begin.regions}
            here = {name for held in pieces.values() for piece in held for name in piece.outputs}
            here |= {state.input for state in self._config.states}
            tasks = []
            for region, held in pieces.items():
                needs = dict.fromkeys(name for piece in held for name in piece.inputs if name not in here)
                sends = [(name, begin.send[name]) for piece in held for name in piece.outputs if name in begin.send]
                tasks.append(Task(region, self._spans[region], tuple(needs), tuple(sends)))
            if len(self._tasks) >= KINDS_OF_RUNS:
                self._tasks.clear()
            found = self._tasks[key] = tuple(tasks)
        return found or ()

    def _take(self, value: NamedArray | RunFailed) -> None:
        """A value belongs to a run that is open, or to one that the driver is about to begin.

        An array may be a view of the channel's memory: it is written where it is read, or copied.
        """
        run = next((item for item in self._runs if item.begin.run == value.run), None)
        if isinstance(value, RunFailed):
            if run is not None:
                run.failed = run.failed or value
            elif self._is_to_come(value.run):
                self._early.append(value)
        elif run is not None and run is self._runs[0] and run.arranged and self._stitched is not None:
            try:
                self._stitched.write(value.name, value.array)
                run.arrived[value.name] = None
            except InlayError as error:
                run.failed = run.failed or RunFailed(run=value.run, code=error.code, message=error.message)
        elif run is not None or self._is_to_come(value.run):
            array = value.array if value.array.flags.writeable else value.array.copy()
            if run is not None:
                run.arrived[value.name] = array
            else:
                self._early.append(msgspec.structs.replace(value, array=array))

    def _is_to_come(self, run: int) -> bool:
        return run > (self._runs[-1].begin.run if self._runs else -1)

    def _advance(self) -> bool:
        """Do what can be done of the oldest run; whether another look is worth it."""
        if not self._runs or self._stitched is None:
            return False
        run = self._runs[0]
        try:
            if run.failed is not None:
                raise DeviceError(run.failed.message)
            if not run.arranged:
                self._stitched.arrange(run.begin.sizes)
                run.arranged = True
            if run.at < len(run.tasks):
                return self._run_task(run, run.tasks[run.at])
        except InlayError as error:
            self._fail(run, error)
            return True
        self._tell(RunDone(run=run.begin.run, device=self._config.device, seconds=run.seconds, moved=run.moved))
        self._runs.popleft()
        return True

    def _run_task(self, run: Open, task: Task) -> bool:
        assert self._stitched is not None
        if any(name not in run.arrived for name in task.needs):
            return False
        begun = time.perf_counter()
        for name in task.needs:
            array = run.arrived[name]
            if array is not None:
                self._stitched.write(name, array)
                run.arrived[name] = None
        self._stitched.run(*task.span)
        run.seconds[task.region] = time.perf_counter() - begun
        for name, destinations in task.sends:
            value = self._stitched.look(name)
            for destination in destinations:
                self._send(destination, value, name, run.begin.run)
                if destination != DRIVER:
                    run.moved[name] = run.moved.get(name, 0) + value.nbytes
        run.at += 1
        return True

    def _fail(self, run: Open, error: InlayError) -> None:
        begin = run.begin
        region = begin.regions[run.at] if run.at < len(begin.regions) else ""
        self._tell(RunError(run=begin.run, device=self._config.device, region=region, code=error.code, message=error.message))
        for destination in {item for items in begin.send.values() for item in items} - {DRIVER}:
            self._send(destination, RunFailed(run=begin.run, code=error.code, message=error.message), "", begin.run)
        self._runs.popleft()

    def _send(self, destination: str, value: Array | RunFailed, name: str, run: int) -> None:
        """Send now what can be sent now. An array may be changed by the next region: what must wait is copied."""
        sender = self._senders.get(destination)
        if sender is not None and not self._unsent and not isinstance(value, RunFailed):
            sender.send(value, name=name, run=run)
            sender.own()
            return
        self._unsent.append((destination, value if isinstance(value, RunFailed) else value.copy(), name, run))
        if destination not in self._channels and destination not in self._connecting and destination != DRIVER:
            self._connecting.add(destination)
            path = Path(self._config.peers[destination])
            self._door.connect(destination, path, kind=STAGE, seconds=CONNECT_SECONDS)

    def _flush(self) -> None:
        """Hand over what waits for channels that are there, in order."""
        kept: deque[tuple[str, Array | RunFailed, str, int]] = deque()
        while self._unsent:
            destination, value, name, run = self._unsent.popleft()
            sender = self._senders.get(destination)
            if sender is None:
                kept.append((destination, value, name, run))
            elif isinstance(value, RunFailed):
                sender.fail(run, code=value.code, message=value.message)
            else:
                sender.send(value, name=name, run=run)
        self._unsent = kept
        for sender in self._senders.values():
            sender.flush()

    def _tell(self, message: DeviceToDriver) -> None:
        """Tell the driver; what it is told must not overtake values of the same run."""
        self._flush()
        channel = self._channels.get(DRIVER)
        sender = self._senders.get(DRIVER)
        if channel is None or sender is None:
            return
        deadline = time.monotonic() + CONNECT_SECONDS
        header = msgspec.msgpack.encode(message)
        while sender.waiting or not channel.send(CONTROL_FRAME, header):
            if time.monotonic() > deadline:
                raise DeviceError(f"the driver of {self._config.device} does not read, waited {CONNECT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
            sender.flush()


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
