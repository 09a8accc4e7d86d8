"""The destination's end of KV transfers: nothing is believed that the engine has not announced and no check confirms."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic

from inlay.engine.conversion import check_readable, check_rope, fit
from inlay.engine.generations import Generations
from inlay.engine.pages import (
    Array,
    Edge,
    Pages,
    Root,
    common_layers,
    head_slices,
    reordered,
    token_bytes,
    travelling,
    unseal,
)
from inlay.engine.planted import Plant
from inlay.engine.quarantine import Quarantine
from inlay.engine.runner import Runner
from inlay.errors import TransferError
from inlay.specs.device import DeviceToEngine, ExpectTransfer, KvArrived, KvFailed, TransferBinding
from inlay.specs.kv import (
    KV_FORMAT_VERSION,
    KV_LAYOUT,
    Abort,
    Acknowledge,
    Chunk,
    Commit,
    Grant,
    KvRecord,
    Refuse,
    Renew,
    Reserve,
    Taken,
)
from inlay.specs.stage import StageShape

PATIENCE = 3
"""Leases that a destination waits for the manifest, whose source may be in the middle of a long batch."""
CREDITS = 8
"""Chunks of one transfer that may be under way: 16 MiB at most, as much as a ring holds."""
Reply = Callable[[KvRecord], None]
log = logging.getLogger("inlay.kv")


@dataclass(slots=True, eq=False)
class Incoming:
    """One announced transfer; `root` and `manifest` are set once its manifest was granted, `heard` is its last sign of life."""

    expected: ExpectTransfer
    own: range
    heads: list[tuple[slice, slice]]
    generations: dict[Hashable, int]
    began: float
    heard: float
    manifest: Reserve | None = None
    root: Root | None = None
    turns: bool = False
    conversion: str = ""
    chunks: int = 0
    rows: int = 0
    bytes: int = 0
    inexact: int = 0

    @property
    def binding(self) -> TransferBinding:
        """As the engine announced it."""
        return self.expected.binding


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
        edge: Edge = Edge(),
        generations: Generations | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._runner = runner
        self._stage = stage
        self._name = name
        self._epoch = epoch
        self._model_digest = model_digest
        self._key = key
        self._report = report
        self._plant = plant
        self._edge = edge
        self._generations = generations or Generations()
        self._clock = clock
        self._quarantine = Quarantine()
        self._open: dict[int, Incoming] = {}

    @property
    def open_count(self) -> int:
        """Transfers that are not over (for tests of restoration)."""
        return len(self._open)

    def expect(self, message: ExpectTransfer) -> None:
        """The engine announces a transfer: binding and slot."""
        binding = message.binding
        try:
            own = common_layers(self._stage, binding.layers)
            heads = head_slices(self._stage, own, binding.heads, self._edge)
        except TransferError as error:
            self._fail(binding, error.cause, error.message)
            return
        held = self._runner.written(message.place, binding.start)
        generations, now = {item: self._generations.take(item, binding.sequence) for item in held}, self._clock()
        self._open[binding.transfer] = Incoming(
            expected=message, own=own, heads=heads, generations=generations, rows=binding.start, began=now, heard=now
        )

    def abort(self, number: int) -> None:
        """Forget a transfer; what comes for it later is discarded."""
        self._open.pop(number, None)

    def receive(self, record: KvRecord, payload: memoryview, reply: Reply) -> None:
        """One record from a source. Every fault ends that transfer with its cause, for both ends, and no other."""
        if not isinstance(record, Reserve | Chunk | Commit | Renew | Abort):
            return
        number = record.binding.transfer if isinstance(record, Reserve) else record.transfer
        incoming = self._open.get(number)
        nonce = record.binding.nonce if isinstance(record, Reserve) else record.nonce
        if incoming is None or nonce != incoming.binding.nonce:
            if isinstance(record, Reserve):
                message = f"transfer {number} was not announced here"
                reply(Refuse(transfer=number, nonce=nonce, cause="unexpected", message=message))
            return
        if incoming.root is not None or not isinstance(record, Renew):
            incoming.heard = self._clock()
        try:
            self._advance(incoming, record, payload, reply)
        except TransferError as error:
            reply(Acknowledge(transfer=number, nonce=nonce, cause=error.cause, message=error.message))
            self._end(incoming, error.cause, error.message)

    def source_lost(self, source: str, message: str) -> None:
        """The channel from a source has ended: its unfinished transfers fail."""
        for incoming in list(self._open.values()):
            if incoming.binding.source == source and incoming.root is not None:
                self._end(incoming, "channel_lost", message)

    def tick(self, now: float) -> None:
        """End transfers whose source has said nothing for a whole lease; for the manifest it has more of them."""
        for incoming in list(self._open.values()):
            silent = now - incoming.heard
            limit = incoming.binding.lease * (PATIENCE if incoming.root is None else 1)
            if silent > limit:
                message = f"{incoming.binding.source} has said nothing for {silent:.1f} s, expected a word within {limit:.1f} s"
                self._end(incoming, "lease", message)

    def _advance(self, incoming: Incoming, record: KvRecord, payload: memoryview, reply: Reply) -> None:
        match record:
            case Reserve():
                self._grant(incoming, record, reply)
            case Chunk():
                self._take_chunk(incoming, record, payload)
                reply(Taken(transfer=record.transfer, nonce=record.nonce, chunks=incoming.chunks))
            case Renew():
                return
            case Commit():
                self._commit(incoming, record, reply)
            case _:
                raise TransferError("the source gave the transfer up", cause="aborted")

    def _grant(self, incoming: Incoming, record: Reserve, reply: Reply) -> None:
        if incoming.root is not None:
            raise TransferError("a second manifest came for one transfer", cause="order")
        self._quarantine.check(record.binding.source, now=self._clock())
        self._check_manifest(incoming, record)
        incoming.turns = check_rope(record.rope, self._edge.rope)
        incoming.conversion = self._conversion(record, turns=incoming.turns)
        incoming.manifest, incoming.root = record, Root(record, self._key)
        incoming.began = self._clock()
        binding = record.binding
        grant = Grant(
            transfer=binding.transfer,
            nonce=binding.nonce,
            lease=binding.lease,
            credits=CREDITS,
            conversion=incoming.conversion,
        )
        reply(grant)
        self._plant.moment("grant")

    def _conversion(self, manifest: Reserve, *, turns: bool) -> str:
        """What is done to the numbers at both ends. Raises TransferError(cause="lossy") for what is not allowed here."""
        lossy = self._edge.allowed.lossy
        reading = check_readable(manifest.dtype, self._edge.stored, lossy=lossy)
        if manifest.conversion and manifest.dtype != "int8":
            check_readable(manifest.stored, manifest.dtype, lossy=lossy)
        return " ".join(filter(None, (manifest.conversion, reading, "rope" if turns else "")))

    def _check_manifest(self, incoming: Incoming, manifest: Reserve) -> None:
        binding = incoming.binding
        layers = travelling(self._stage, incoming.own, binding.heads, self._edge)
        checks = (
            ("version", manifest.version, KV_FORMAT_VERSION),
            ("model", manifest.model_digest, self._model_digest),
            ("binding", manifest.binding, binding),
            ("epoch", manifest.binding.destination_epoch, self._epoch),
            ("layout", manifest.layout, KV_LAYOUT),
            ("layers", manifest.layers, layers),
        )
        for cause, value, expected in checks:
            if value != expected:
                raise TransferError(f"manifest {cause} is {value!r}, expected {expected!r}", cause=cause)
        check_readable(manifest.dtype, self._edge.stored, lossy=self._edge.allowed.lossy)
        size = (binding.tokens - binding.start) * token_bytes(layers, dtype=manifest.dtype)
        if manifest.bytes_expected != size:
            raise TransferError(f"manifest size is {manifest.bytes_expected}, expected {size}", cause="size")

    def _take_chunk(self, incoming: Incoming, chunk: Chunk, payload: memoryview) -> None:
        if incoming.root is None or incoming.manifest is None:
            raise TransferError("a chunk came before its manifest", cause="order")
        binding, manifest = incoming.binding, incoming.manifest
        due = (chunk.number, chunk.start) == (incoming.chunks, incoming.rows)
        if not due or not 0 < chunk.tokens <= binding.tokens - incoming.rows:
            raise TransferError(
                f"chunk {chunk.number} of rows {chunk.start}+{chunk.tokens}, expected chunk {incoming.chunks} "
                f"from row {incoming.rows} of {binding.tokens}",
                cause="order",
            )
        if chunk.generation != manifest.generation:
            raise TransferError(
                f"chunk {chunk.number} is of generation {chunk.generation}, expected {manifest.generation}", cause="generation"
            )
        verified = unseal(payload, chunk.crcs, manifest.layers, chunk.tokens, dtype=manifest.dtype)
        incoming.root.add(chunk.start, chunk.tokens, chunk.crcs)
        pages = self._plant.imported(verified, transfer=binding.transfer, start=chunk.start, total=binding.tokens)
        self._write(incoming, chunk, pages)
        incoming.chunks += 1
        incoming.rows += chunk.tokens
        incoming.bytes += len(payload)

    def _write(self, incoming: Incoming, chunk: Chunk, pages: Pages) -> None:
        """Bring verified pages into this pool's own form and write them, the slot being still the sequence's."""
        edge, dtype = self._edge, incoming.manifest.dtype if incoming.manifest else ""
        rows: list[tuple[Array, Array]] = []
        for pair in pages:
            found = [fit(page, dtype, edge.stored, lossy=edge.allowed.lossy) for page in pair]
            incoming.inexact += found[0][1] + found[1][1]
            rows.append((found[0][0], found[1][0]))
        fitted: Pages = reordered(rows, edge.rope) if incoming.turns else rows
        self._check_held(incoming)
        if incoming.binding.heads is not None:
            fitted = self._merged(incoming, chunk, fitted)
        self._runner.import_kv(incoming.expected.place, chunk.start, fitted, incoming.own)

    def _check_held(self, incoming: Incoming) -> None:
        """Raises TransferError(cause="generation") where the slot, or one of the pages, has changed hands."""
        for held, generation in incoming.generations.items():
            self._generations.check(held, generation)

    def _merged(self, incoming: Incoming, chunk: Chunk, pages: Pages) -> Pages:
        """The rows as they are in the slot, with the heads that came in their places."""
        rows = self._runner.export_kv(incoming.expected.place, chunk.start, chunk.tokens, incoming.own)
        for (keys, values), (new_keys, new_values), (cut, of) in zip(rows, pages, incoming.heads, strict=True):
            keys[:, cut], values[:, of] = new_keys, new_values
        return rows

    def _commit(self, incoming: Incoming, commit: Commit, reply: Reply) -> None:
        binding = incoming.binding
        if incoming.root is None:
            raise TransferError("a commit came before its manifest", cause="order")
        found = (incoming.chunks, incoming.bytes, incoming.rows)
        if found != (commit.chunks, commit.size, binding.tokens):
            raise TransferError(
                f"chunks, bytes and rows are {found}, expected {(commit.chunks, commit.size, binding.tokens)}",
                cause="truncated",
            )
        if not hmac.compare_digest(incoming.root.value(), commit.root):
            raise TransferError("the digest over manifest and pages differs from the committed one", cause="digest")
        self._check_held(incoming)
        self._plant.moment("acknowledge")
        del self._open[binding.transfer]
        reply(Acknowledge(transfer=binding.transfer, nonce=binding.nonce))
        arrived = KvArrived(
            transfer=binding.transfer,
            sequence=binding.sequence,
            tokens=incoming.rows,
            size=incoming.bytes,
            chunks=incoming.chunks,
            started=incoming.began,
            ended=self._clock(),
            conversion=incoming.conversion,
            inexact=incoming.inexact,
        )
        self._report(arrived)

    def _end(self, incoming: Incoming, cause: str, message: str) -> None:
        """A transfer has failed: it is forgotten and told; a fault of integrity is kept for whoever looks for its reason."""
        self._open.pop(incoming.binding.transfer, None)
        if self._quarantine.failed(incoming.binding.source, cause, now=self._clock()):
            log.error("%s is in quarantine: %s; manifest %r", incoming.binding.source, message, incoming.manifest)
        elif cause not in ("aborted", "lease", "channel_lost", "quarantined"):
            log.warning(
                "transfer %d refused, %s: %s; manifest %r", incoming.binding.transfer, cause, message, incoming.manifest
            )
        self._fail(incoming.binding, cause, message)

    def _fail(self, binding: TransferBinding, cause: str, message: str) -> None:
        self._report(KvFailed(transfer=binding.transfer, sequence=binding.sequence, cause=cause, message=message))
