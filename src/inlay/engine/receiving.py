"""The destination's end of KV transfers: nothing is believed that the engine has not announced and no check confirms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from inlay.engine.pages import Root, chunk_bytes, common_layers, unseal
from inlay.engine.planted import Plant
from inlay.engine.runner import Runner
from inlay.errors import TransferError
from inlay.specs.device import DeviceToEngine, ExpectTransfer, KvArrived, KvFailed, TransferBinding
from inlay.specs.kv import KV_FORMAT_VERSION, KV_LAYOUT, Abort, Acknowledge, Chunk, Commit, Grant, KvRecord, Refuse, Reserve
from inlay.specs.stage import KvLayer, StageShape

Reply = Callable[[KvRecord], None]


@dataclass(slots=True, eq=False)
class Incoming:
    """One announced transfer; `root` is set once its manifest was granted."""

    expected: ExpectTransfer
    own: range
    began: float
    root: Root | None = None
    chunks: int = 0
    rows: int = 0
    bytes: int = 0


class Receiver:
    """All incoming transfers of one device process."""

    def __init__(
        self,
        runner: Runner,
        stage: StageShape,
        *,
        name: str,
        epoch: int,
        model_digest: str,
        key: bytes,
        report: Callable[[DeviceToEngine], None],
        plant: Plant,
    ) -> None:
        self._runner = runner
        self._stage = stage
        self._name = name
        self._epoch = epoch
        self._model_digest = model_digest
        self._key = key
        self._report = report
        self._plant = plant
        self._open: dict[int, Incoming] = {}

    def expect(self, message: ExpectTransfer) -> None:
        """The engine announces a transfer: binding and slot."""
        try:
            own = common_layers(self._stage, message.binding.layers)
        except TransferError as error:
            self._fail(message.binding, error.cause, error.message)
            return
        self._open[message.binding.transfer] = Incoming(expected=message, own=own, began=monotonic())

    def abort(self, number: int) -> None:
        """Forget a transfer; what comes for it later is discarded."""
        self._open.pop(number, None)

    def receive(self, record: KvRecord, payload: memoryview, reply: Reply) -> None:
        """One record from a source. Every fault ends that transfer with its cause, for both ends, and no other."""
        if not isinstance(record, Reserve | Chunk | Commit | Abort):
            return
        number = record.binding.transfer if isinstance(record, Reserve) else record.transfer
        incoming = self._open.get(number)
        nonce = record.binding.nonce if isinstance(record, Reserve) else record.nonce
        if incoming is None or nonce != incoming.expected.binding.nonce:
            if isinstance(record, Reserve):
                reply(Refuse(transfer=number, cause="unexpected", message=f"transfer {number} was not announced here"))
            return
        try:
            self._advance(incoming, record, payload, reply)
        except TransferError as error:
            del self._open[number]
            reply(Acknowledge(transfer=number, nonce=nonce, cause=error.cause, message=error.message))
            self._fail(incoming.expected.binding, error.cause, error.message)

    def source_lost(self, source: str, message: str) -> None:
        """The channel from a source has ended: its unfinished transfers fail."""
        for number, incoming in list(self._open.items()):
            if incoming.expected.binding.source == source and incoming.root is not None:
                del self._open[number]
                self._fail(incoming.expected.binding, "channel_lost", message)

    def _advance(self, incoming: Incoming, record: KvRecord, payload: memoryview, reply: Reply) -> None:
        match record:
            case Reserve():
                self._check_manifest(incoming, record)
                incoming.root = Root(record, self._key)
                incoming.began = monotonic()
                reply(Grant(transfer=record.binding.transfer, nonce=record.binding.nonce))
            case Chunk():
                self._take_chunk(incoming, record, payload)
            case Commit():
                self._commit(incoming, record, reply)
            case _:
                raise TransferError("the source gave the transfer up", cause="aborted")

    def _check_manifest(self, incoming: Incoming, manifest: Reserve) -> None:
        binding, layers = incoming.expected.binding, self._layers(incoming)
        checks = (
            ("version", manifest.version, KV_FORMAT_VERSION),
            ("model", manifest.model_digest, self._model_digest),
            ("binding", manifest.binding, binding),
            ("epoch", manifest.binding.destination_epoch, self._epoch),
            ("layout", (manifest.layout, manifest.dtype), (KV_LAYOUT, "float32")),
            ("layers", manifest.layers, layers),
            ("size", manifest.bytes_expected, chunk_bytes(layers, binding.tokens)),
        )
        for cause, value, expected in checks:
            if value != expected:
                raise TransferError(f"manifest {cause} is {value!r}, expected {expected!r}", cause=cause)

    def _layers(self, incoming: Incoming) -> tuple[KvLayer, ...]:
        """The layers that travel on this transfer."""
        return self._stage.layers[incoming.own.start : incoming.own.stop]

    def _take_chunk(self, incoming: Incoming, chunk: Chunk, payload: memoryview) -> None:
        if incoming.root is None:
            raise TransferError("a chunk came before its manifest", cause="order")
        binding = incoming.expected.binding
        if (chunk.number, chunk.start) != (incoming.chunks, incoming.rows) or chunk.start + chunk.tokens > binding.tokens:
            raise TransferError(
                f"chunk {chunk.number} of rows {chunk.start}+{chunk.tokens}, expected chunk {incoming.chunks} "
                f"from row {incoming.rows} of {binding.tokens}",
                cause="order",
            )
        verified = unseal(payload, chunk.crcs, self._layers(incoming), chunk.tokens)
        incoming.root.add(chunk.start, chunk.tokens, chunk.crcs)
        pages = self._plant.imported(verified, transfer=binding.transfer, start=chunk.start, total=binding.tokens)
        self._runner.import_kv(incoming.expected.slot, chunk.start, pages, incoming.own)
        incoming.chunks += 1
        incoming.rows += chunk.tokens
        incoming.bytes += len(payload)

    def _commit(self, incoming: Incoming, commit: Commit, reply: Reply) -> None:
        binding = incoming.expected.binding
        if incoming.root is None:
            raise TransferError("a commit came before its manifest", cause="order")
        found = (incoming.chunks, incoming.bytes, incoming.rows)
        if found != (commit.chunks, commit.size, binding.tokens):
            raise TransferError(
                f"chunks, bytes and rows are {found}, expected {(commit.chunks, commit.size, binding.tokens)}",
                cause="truncated",
            )
        if incoming.root.value() != commit.root:
            raise TransferError("the digest over manifest and pages differs from the committed one", cause="digest")
        del self._open[binding.transfer]
        reply(Acknowledge(transfer=binding.transfer, nonce=binding.nonce))
        arrived = KvArrived(
            transfer=binding.transfer,
            sequence=binding.sequence,
            tokens=incoming.rows,
            size=incoming.bytes,
            chunks=incoming.chunks,
            started=incoming.began,
            ended=monotonic(),
        )
        self._report(arrived)

    def _fail(self, binding: TransferBinding, cause: str, message: str) -> None:
        self._report(KvFailed(transfer=binding.transfer, sequence=binding.sequence, cause=cause, message=message))
