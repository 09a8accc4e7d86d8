"""One device process: loads its Region, then obeys the engine one message at a time and hands KV to other devices.

Started by `workers` with a configuration; owns weights, threads and the KV bytes of its layers; ends when the engine does.
Of several that make one runner the first leads, the hidden state goes from each to the next, the last one samples. One
whose neighbour has gone is of no use: it fails the batch that waits and ends.
"""

from __future__ import annotations

import logging
import selectors
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from inlay.engine.drafting import Drafter
from inlay.engine.generations import Generations
from inlay.engine.kept import PageStore
from inlay.engine.neighbours import Neighbours
from inlay.engine.paged import PagedRunner
from inlay.engine.pages import Edge, decode_record
from inlay.engine.planted import Plant
from inlay.engine.receiving import Receiver
from inlay.engine.renewing import Renewer
from inlay.engine.runner import ExtendRunner, Runner
from inlay.engine.sending import KV_FRAME, Sender
from inlay.errors import InlayError, TransferError
from inlay.runtime import LoadedRegion, load_region
from inlay.specs.device import (
    AbortTransfer,
    BatchDone,
    BatchFailed,
    Beat,
    DeviceToEngine,
    Draft,
    DraftDone,
    EngineToDevice,
    ExpectTransfer,
    Fill,
    Interrupt,
    Keep,
    Move,
    OpenTransfer,
    Ping,
    Ready,
    Row,
    SlotAddress,
    Stop,
    Submit,
)
from inlay.specs.kv import KvRecord, KvTransfer, Reserve, Rope
from inlay.specs.rounds import Unsaid, following
from inlay.specs.stage import PagedShape
from inlay.transport import CONTROL_FRAME, ENGINE_NAME, KV, STAGE, Arrival, Channel, Door, RunFailed, Tls

POLL_SECONDS = 0.0002
NEIGHBOUR_SECONDS = 600.0
"""How long a neighbour may take to load."""
log = logging.getLogger("inlay.device")


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a device process is started with. `peers` maps the places of all other processes to their addresses: the path
    of a socket, or tcp://HOST:PORT; `tcp` is where it listens for the latter, inside of `tls` where given. `before` and
    `after` are the neighbours in its replica, empty where the model begins and ends."""

    place: str
    epoch: int
    key: bytes
    socket: str
    peers: dict[str, str]
    model_digest: str
    artifact: str
    weights: str
    backend: str
    framework_version: str
    threads: int
    capacities: tuple[int, ...]
    rooms: tuple[int, ...]
    slots: int
    page: int = 0
    pages: int = 0
    keeps: bool = True
    before: str = ""
    after: str = ""
    options: dict[str, str] = {}
    tcp: str = ""
    tls: Tls | None = None
    kv_transfer: KvTransfer = KvTransfer()
    rope: Rope = Rope()
    fault: str = "none"


def main(config: dict[str, Any]) -> None:
    """The program of a device process; returns when the engine has gone or says stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    DeviceProcess(msgspec.convert(config, DeviceConfig)).run()


def _make_runner(region: LoadedRegion, config: DeviceConfig) -> tuple[Runner, int, int, int]:
    """The runner that the artifact's program asks for; tokens of a page, pages, and how many of them lie beside its slots.

    A paged runner has pages only, and keeps prompts where they lie.
    """
    if not region.manifest.page:
        rooms = dict(zip(config.capacities, config.rooms, strict=True))
        runner = ExtendRunner(region.executable, region.stage, rooms=rooms, buckets=region.manifest.buckets)
        return runner, config.page, config.pages, config.pages
    shape = PagedShape(stage=region.stage, page=region.manifest.page)
    return PagedRunner(region.executable, shape, pages=config.pages), shape.page, config.pages, 0


class DeviceProcess:
    """The main loop: engine first, then activations, then KV from peers, one batch at a time."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        began = monotonic()
        region = load_region(
            Path(config.artifact),
            weights=Path(config.weights),
            backend=config.backend,
            threads=config.threads,
            options=config.options,
        )
        self._stage = region.stage
        self._plant = Plant(config.fault)
        self._runner, page, pages, kept = _make_runner(region, config)
        self._drafter = Drafter(self._runner)
        self._kept = PageStore(self._runner, region.stage, page=page, count=kept)
        self._ready = Ready(
            place=config.place,
            epoch=config.epoch,
            framework=config.backend,
            framework_version=config.framework_version,
            stage=region.stage,
            precision=region.manifest.precision,
            capacities=config.capacities,
            rooms=config.rooms,
            slots=config.slots,
            page=page,
            pages=pages,
            keeps=config.keeps,
            abilities=self._runner.abilities,
            batches=() if region.manifest.buckets is None else region.manifest.buckets.batches,
            load_seconds=monotonic() - began,
            memory={"weights": region.weights} | self._runner.memory() | self._kept.memory(),
        )
        self._door = Door(Path(config.socket), name=config.place, key=config.key, tcp=config.tcp, tls=config.tls)
        self._generations, self._renewer = Generations(), Renewer()
        edge = Edge(stored=region.manifest.precision.kv, rope=config.rope, allowed=config.kv_transfer)
        self._sender, self._receiver = self._make_ends(edge)
        self._neighbours = Neighbours(self._stage, before=config.before, after=config.after)
        if config.after:
            self._door.connect(config.after, config.peers[config.after], kind=STAGE, seconds=NEIGHBOUR_SECONDS)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door, selectors.EVENT_READ, "door")
        self._engine: Channel | None = None
        self._incoming: dict[str, Channel] = {}
        self._messages: deque[EngineToDevice] = deque()
        self._replies: deque[tuple[str, bytes]] = deque()
        self._reserves: deque[tuple[str, Reserve]] = deque()
        self._flight: Submit | Draft | None = None
        self._begun = False  # whether the batch in flight has its hidden state, where it needs one, and runs
        self._in_rounds = False  # whether it is a further round of one
        self._interrupted: int | None = None
        self._unsaid = Unsaid()
        self._running = True
        self._decode_message = msgspec.msgpack.Decoder(EngineToDevice).decode

    def _make_ends(self, edge: Edge) -> tuple[Sender, Receiver]:
        """Of hand-offs from here, and to here."""
        config = self._config
        sender = Sender(
            self._runner,
            self._stage,
            model_digest=config.model_digest,
            key=config.key,
            connect=lambda peer: self._door.connect(peer, config.peers[peer], kind=KV),
            report=self._report,
            edge=edge,
            generations=self._generations,
            renewer=self._renewer,
            plant=self._plant,
        )
        receiver = Receiver(
            self._runner,
            self._stage,
            name=config.place,
            epoch=config.epoch,
            model_digest=config.model_digest,
            key=config.key,
            report=self._report,
            plant=self._plant,
            edge=edge,
            generations=self._generations,
        )
        return sender, receiver

    def run(self) -> None:
        """Loop until stopped."""
        log.info("%s ready after %.2f s", self._config.place, self._ready.load_seconds)
        self._renewer.start()
        try:
            self._loop()
        finally:
            self._renewer.close()
            self._neighbours.close()

    def _loop(self) -> None:
        while self._running:
            runs = self._flight is not None and self._begun
            busy = runs or self._messages or self._sender.waiting or self._replies or self._reserves
            self._selector.select(self._patience() if busy else 1.0)
            for arrival in self._door.take():
                self._arrived(arrival)
            self._read_engine()
            self._read_neighbours()
            self._advance()
            if self._idle():
                self._read_peers()
            self._answer_reserves()
            self._send_replies()
            self._sender.flush()
            if self._idle():  # everything that had come is read: who is silent now, is silent
                self._sender.tick(monotonic())
                self._receiver.tick(monotonic())

    def _patience(self) -> float:
        """How long to wait for news while there is work: not at all between steps of which the next has run already."""
        several = isinstance(self._flight, Draft) or self._in_rounds
        return 0.0 if several and self._begun and self._runner.immediate else POLL_SECONDS

    def _advance(self) -> None:
        """Obey messages in order; a batch in flight is ended before the next message is looked at."""
        while self._running:
            if self._flight is not None and not self._begin(self._flight):
                return
            if self._flight is not None:
                outcome = self._drafter.poll() if isinstance(self._flight, Draft) else self._runner.poll()
                if outcome is None:
                    return
                self._end(self._flight, outcome)
                if self._flight is not None:
                    return  # its next round has begun
            if not self._messages:
                return
            self._obey(self._messages.popleft())

    def _begin(self, batch: Submit | Draft) -> bool:
        """Start the batch in flight as soon as its hidden state is there; False while it must be waited for."""
        if self._begun:
            return True
        if isinstance(batch, Draft):
            self._begun = True
            self._drafter.submit(batch)
            return True
        given = None if self._stage.begins else self._neighbours.take(batch.batch)
        if isinstance(given, RunFailed):
            self._end(batch, BatchFailed(batch=batch.batch, code=given.code, message=given.message))
        elif given is None and not self._stage.begins:
            return False
        else:
            self._begun = True
            self._runner.submit(batch, given)
        return True

    def _end(self, batch: Submit | Draft, outcome: BatchDone | DraftDone | BatchFailed) -> None:
        """The batch in flight is over: the piece after it and the engine are told, its new KV rows are sent on."""
        ran, self._flight, self._begun, self._in_rounds = self._begun, None, False, False
        if isinstance(batch, Draft) or isinstance(outcome, DraftDone):
            self._report(outcome)
            return
        try:
            if isinstance(outcome, BatchFailed):
                if ran and not (self._stage.begins and self._stage.ends):  # which of its processes has failed
                    outcome = msgspec.structs.replace(outcome, message=f"{self._config.place}: {outcome.message}")
                self._neighbours.fail(batch.batch, code=outcome.code, message=outcome.message)
            elif self._runner.hidden is not None:
                self._neighbours.send(batch.batch, self._runner.hidden)
        except TransferError as error:
            self._neighbour_lost(error)
        again = self._next_round(batch, outcome)
        self._report_round(outcome, more=again is not None)
        if isinstance(outcome, BatchDone):
            for row in batch.rows:
                self._sender.row_done(row, SlotAddress(batch.capacity, row.slot))
        if again is not None:
            self._flight, self._begun, self._in_rounds = again, True, True
            self._runner.submit(again)

    def _report_round(self, outcome: BatchDone | BatchFailed, *, more: bool) -> None:
        if isinstance(outcome, BatchDone):
            report = self._unsaid.take(outcome, more=more)
            if report is not None:
                self._report(report)
            return
        held = self._unsaid.give(more=True)
        if held is not None:
            self._report(held)
        self._report(outcome)

    def _next_round(self, batch: Submit, outcome: BatchDone | BatchFailed) -> Submit | None:
        """What is left of a batch of several rounds; nothing once something else waits."""
        if isinstance(outcome, BatchFailed) or self._messages or self._interrupted == batch.batch:
            return None
        return following(batch, outcome)

    def _idle(self) -> bool:
        return self._flight is None and not self._messages

    def _answer_reserves(self) -> None:
        """The engine announced a transfer here before its source could ask for room, but on another socket: what the
        engine had sent by the time the question was read is obeyed first."""
        if not self._reserves:
            return
        self._read_engine()
        self._advance()
        while self._idle() and self._reserves:
            name, record = self._reserves.popleft()
            self._receiver.receive(record, memoryview(b""), lambda reply, to=name: self._reply(to, reply))  # type: ignore[misc]

    def _obey(self, message: EngineToDevice) -> None:
        match message:
            case Submit():
                self._take_slots(message)
                self._flight, self._begun = self._planted(message), False
            case Draft():
                self._take_slots(message)
                self._flight, self._begun = message, False
            case Move(sequence=sequence, source=source, destination=destination, length=length):
                self._generations.take(destination, sequence)
                self._runner.move(source, destination, length)
            case Keep():
                self._kept.keep(message)
            case Fill():
                self._kept.fill(message)
            case OpenTransfer():
                self._sender.open(message)
            case ExpectTransfer():
                self._receiver.expect(message)
            case AbortTransfer(transfer=number, reason=reason):
                self._sender.abort(number, reason)
                self._receiver.abort(number)
            case Ping():
                counters = {"prompt_tokens": self._runner.prompt_tokens, "rows": self._runner.rows_run}
                self._report(Beat(memory=self._runner.memory() | self._kept.memory(), counters=counters))
            case Stop():
                self._running = False

    def _take_slots(self, batch: Submit | Draft) -> None:
        for row in batch.rows:
            self._generations.take(SlotAddress(batch.capacity, row.slot), row.sequence)
            if isinstance(row, Row) and row.pages:
                for page in self._runner.written(row.pages, row.past_length):
                    self._generations.take(page, row.sequence)

    def _planted(self, batch: Submit) -> Submit:
        """The batch as it is, or with the planted fault of a test."""
        if self._config.fault != "position" or batch.phase != "decode":
            return batch
        rows = tuple(msgspec.structs.replace(row, past_length=self._plant.past_length(row.past_length)) for row in batch.rows)
        return msgspec.structs.replace(batch, rows=rows)

    def _arrived(self, arrival: Arrival) -> None:
        channel = arrival.channel
        if arrival.kind == STAGE and (channel is not None or not arrival.incoming):
            self._neighbour_arrived(arrival)
            return
        if channel is None:
            log.warning("connection with %s failed: %s", arrival.peer or "a stranger", arrival.reason)
            if not arrival.incoming:
                self._sender.channel_lost(arrival.peer, f"{arrival.peer} cannot be reached: {arrival.reason}")
            return
        self._selector.register(channel, selectors.EVENT_READ, arrival.peer)
        if arrival.peer == ENGINE_NAME:
            self._engine = channel
            self._say_ready()
        elif arrival.incoming:
            if (before := self._incoming.get(arrival.peer)) is not None:  # it came anew: the old link is of no use
                self._forget(arrival.peer, before)
                self._receiver.source_lost(arrival.peer, f"{arrival.peer} connected anew")
            self._incoming[arrival.peer] = channel
        else:
            self._sender.connected(arrival.peer, channel)

    def _neighbour_arrived(self, arrival: Arrival) -> None:
        """Raises DeviceError for one that cannot be reached: this process is then of no use."""
        if self._neighbours.connected(arrival) and arrival.channel is not None:
            self._selector.register(arrival.channel, selectors.EVENT_READ, STAGE)
            self._say_ready()
        else:
            log.warning("%s wanted to be a neighbour, which it is not", arrival.peer)

    def _say_ready(self) -> None:
        if self._engine is not None and self._neighbours.complete:
            self._report(self._ready)

    def _read_neighbours(self) -> None:
        try:
            self._neighbours.receive()
        except TransferError as error:
            self._neighbour_lost(error)

    def _neighbour_lost(self, error: TransferError) -> None:
        """A neighbour has gone, or what it says makes no sense: the batch that waits fails, and this process ends."""
        log.warning("neighbour lost: %s; ending", error.message)
        self._running = False
        if self._flight is not None:
            batch, self._flight = self._flight, None
            message = f"{self._config.place} has lost its neighbour {error.message}"
            self._report(BatchFailed(batch=batch.batch, code="device_lost", message=message))

    def _read_engine(self) -> None:
        if self._engine is None:
            return
        try:
            while (frame := self._engine.receive()) is not None:
                message = self._decode_message(frame.header)
                if isinstance(message, Interrupt):
                    self._interrupted = message.batch
                    self._drafter.interrupt(message.batch)
                else:
                    self._messages.append(message)
        except TransferError as error:
            log.info("the engine has gone (%s): ending", error.cause)
            self._running = False

    def _read_peers(self) -> None:
        for name, channel in list(self._incoming.items()):
            try:
                while (frame := channel.receive()) is not None:
                    record = decode_record(frame.header)
                    if isinstance(record, Reserve):
                        self._reserves.append((name, record))
                        continue
                    self._receiver.receive(record, frame.payload, lambda reply, to=name: self._reply(to, reply))  # type: ignore[misc]
            except TransferError as error:
                self._forget(name, channel)
                self._receiver.source_lost(name, str(error))
        for name, channel in list(self._sender.channels.items()):
            try:
                while (frame := channel.receive()) is not None:
                    self._sender.receive(decode_record(frame.header))
            except TransferError as error:
                self._selector.unregister(channel)
                self._sender.channel_lost(name, str(error))

    def _forget(self, name: str, channel: Channel) -> None:
        self._incoming.pop(name, None)
        self._selector.unregister(channel)
        channel.close()

    def _reply(self, to: str, record: KvRecord) -> None:
        self._replies.append((to, msgspec.msgpack.encode(record)))

    def _send_replies(self) -> None:
        """In order for each peer; one whose channel is full holds up nobody else."""
        waiting: dict[str, list[bytes]] = {}
        for to, header in self._replies:
            channel = self._incoming.get(to)
            try:
                if to in waiting or (channel is not None and not channel.send(KV_FRAME, header)):
                    waiting.setdefault(to, []).append(header)
            except InlayError as error:
                log.warning("reply to %s lost: %s", to, error)
        self._replies = deque((to, header) for to, headers in waiting.items() for header in headers)

    def _report(self, message: DeviceToEngine) -> None:
        """Tell the engine; a device without one has nobody to tell."""
        if self._engine is not None:
            try:
                self._engine.send(CONTROL_FRAME, msgspec.msgpack.encode(message))
            except TransferError as error:
                log.info("the engine has gone (%s): ending", error.cause)
                self._running = False
