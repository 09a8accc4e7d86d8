"""The source's end of KV transfers: reserve, seal each prompt chunk as it is computed, send, commit, await the answer.

A row names the scheduler's transfer; its pages go out on every part of it that this process holds, each with its layers.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec

from inlay.engine.generations import Generations
from inlay.engine.outgoing import Outgoing, describe
from inlay.engine.pages import (
    Edge,
    Root,
    chunk_ranges,
    common_layers,
    cut_heads,
    head_slices,
    seal,
    travelling,
)
from inlay.engine.planted import Plant
from inlay.engine.renewing import Beat, Renewer
from inlay.engine.runner import Runner
from inlay.errors import TransferError
from inlay.specs.device import DeviceToEngine, KvFailed, KvSent, OpenTransfer, Row, SlotAddress, TransferBinding
from inlay.specs.kv import (
    Abort,
    Acknowledge,
    Chunk,
    Grant,
    KvRecord,
    Refuse,
    Renew,
    Taken,
)
from inlay.specs.stage import StageShape
from inlay.transport import Channel, LockedChannel

RENEWALS = 3
"""So many in one lease: two may be late or lost."""
PATIENCE = 3
"""Leases that a source waits for what the destination owes it, whose batches may be long. It holds copies only, no slot."""
KV_FRAME = 2


class Sender:
    """All outgoing transfers of one device process. `now` in seconds of the monotonic clock."""

    def __init__(
        self,
        runner: Runner,
        stage: StageShape,
        *,
        model_digest: str,
        key: bytes,
        connect: Callable[[str], None],
        report: Callable[[DeviceToEngine], None],
        edge: Edge = Edge(),
        generations: Generations | None = None,
        renewer: Renewer | None = None,
        plant: Plant | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._runner = runner
        self._stage = stage
        self._model_digest = model_digest
        self._key = key
        self._connect = connect
        self._report = report
        self._edge = edge
        self._generations = generations or Generations()
        self._renewer = renewer or Renewer()
        self._plant = plant or Plant()
        self._clock = clock
        self._open: dict[int, Outgoing] = {}
        self._connecting: set[str] = set()
        self.channels: dict[str, Channel] = {}

    @property
    def waiting(self) -> bool:
        """Whether sealed pages wait for room in a channel, or a manifest for its channel."""
        return any(item.may_send or not item.reserved for item in self._open.values())

    @property
    def open_count(self) -> int:
        """Transfers that are not over (for tests of restoration)."""
        return len(self._open)

    def open(self, message: OpenTransfer) -> None:
        """Ask the destination for room. A destination that cannot be reached is a failed transfer, at once."""
        binding = message.binding
        try:
            transfer = self._outgoing(message)
        except TransferError as error:
            self._report_failure(binding, error.cause, error.message)
            return
        self._open[binding.transfer] = transfer
        destination = binding.destination
        if destination not in self.channels and destination not in self._connecting:
            self._connecting.add(destination)
            self._connect(destination)
        self._plant.moment("reserve")
        self.flush()

    def connected(self, destination: str, channel: Channel) -> None:
        """The channel that `connect` was asked for is there."""
        self._connecting.discard(destination)
        self.channels[destination] = LockedChannel(channel)
        self.flush()

    def row_done(self, row: Row, slot: SlotAddress) -> None:
        """Seal and queue the rows a batch has just written, in frames of bounded size; the last row commits."""
        if row.transfer is None:
            return
        for transfer in list(self._open.values()):
            binding = transfer.binding
            if row.transfer == (binding.transfer if binding.part_of is None else binding.part_of):
                try:
                    self._seal(transfer, row, slot)
                except TransferError as error:
                    self._give_up(transfer, error)
        self.flush()

    def flush(self) -> None:
        """Send what has been granted, as far as the channels take it."""
        for transfer in list(self._open.values()):
            destination = transfer.binding.destination
            if destination not in self.channels:
                continue
            try:
                self._push(transfer, destination)
            except TransferError as error:
                self.channel_lost(destination, error.message)

    def receive(self, record: KvRecord) -> None:
        """A record that came back from a destination."""
        match record:
            case Grant(transfer=number, nonce=nonce, credits=credits) if self._matches(number, nonce):
                self._open[number].credits = max(1, credits)
                self._publish_beats()
                self.flush()
            case Taken(transfer=number, nonce=nonce, chunks=chunks) if self._matches(number, nonce):
                self._open[number].taken = max(self._open[number].taken, min(chunks, self._open[number].sent))
                self.flush()
            case Refuse(transfer=number, nonce=nonce, cause=cause, message=message) if self._matches(number, nonce):
                self._fail(number, cause, message)
            case Acknowledge(transfer=number, nonce=nonce, cause=cause, message=message) if self._matches(number, nonce):
                if cause:
                    self._fail(number, cause, message)
                else:
                    done = self._close(number)
                    self._report(KvSent(transfer=number, sequence=done.binding.sequence, size=done.bytes))
            case _:
                return

    def tick(self, now: float) -> None:
        """End transfers whose destination owes an answer for too long."""
        for transfer in list(self._open.values()):
            silent, limit = now - transfer.moved, PATIENCE * transfer.binding.lease
            if transfer.waits and silent > limit:
                message = f"{transfer.binding.destination} owes an answer for {silent:.1f} s, expected it within {limit:.1f} s"
                self._give_up(transfer, TransferError(message, cause="lease"))

    def abort(self, number: int, reason: str) -> None:
        """The engine gives the transfer up; the destination is told."""
        if number in self._open:
            self._tell_abort(self._close(number), reason)

    def channel_lost(self, destination: str, message: str) -> None:
        """All transfers to a destination fail with its channel (or because there is none); the next one connects anew."""
        self._connecting.discard(destination)
        channel = self.channels.pop(destination, None)
        if channel is not None:
            channel.close()
        for number, transfer in list(self._open.items()):
            if transfer.binding.destination == destination:
                self._fail(number, "channel_lost", message)

    def _outgoing(self, message: OpenTransfer) -> Outgoing:
        """A transfer with its manifest. Raises TransferError for layers, heads or a dtype that this process cannot send."""
        binding = message.binding
        own = common_layers(self._stage, binding.layers)
        heads = head_slices(self._stage, own, binding.heads, self._edge)
        manifest = describe(
            binding,
            layers=travelling(self._stage, own, binding.heads, self._edge),
            edge=self._edge,
            model_digest=self._model_digest,
            generation=self._generations.take(message.slot, binding.sequence),
        )
        manifest = self._plant.manifest(manifest)
        root = Root(manifest, self._key)
        return Outgoing(manifest=manifest, root=root, own=own, heads=heads, rows=binding.start, moved=self._clock())

    def _seal(self, transfer: Outgoing, row: Row, slot: SlotAddress) -> None:
        """Copy out what has not been sent yet, up to the end of this row, and take the checksums of the copies; the slot must
        be the sequence's own before and after that. Rows that were there already (a prefix) travel with the first chunk.

        Raises TransferError: "generation" where it is not, "lossy" or "overflow" where the wire cannot hold the values.
        """
        manifest = transfer.manifest
        end = row.past_length + len(row.tokens)
        for start, count in chunk_ranges(transfer.rows, end, manifest.layers, dtype=manifest.dtype):
            self._generations.check(slot, manifest.generation)
            pages = cut_heads(self._runner.export_kv(row.pages or slot, start, count, transfer.own), transfer.heads)
            arrays, crcs = seal(pages, dtype=manifest.dtype, edge=self._edge)
            self._generations.check(slot, manifest.generation)
            transfer.root.add(start, count, crcs)
            chunk = Chunk(
                transfer=manifest.binding.transfer,
                nonce=manifest.binding.nonce,
                number=transfer.chunks,
                start=start,
                tokens=count,
                generation=manifest.generation,
                crcs=crcs,
            )
            transfer.rows, transfer.chunks = start + count, transfer.chunks + 1
            transfer.bytes += sum(array.nbytes for array in arrays)
            transfer.queue.extend(self._plant.outgoing(chunk, arrays))
            transfer.moved = self._clock()
        if row.commit:
            transfer.queue.extend(self._plant.outgoing(transfer.commit(), []))

    def _push(self, transfer: Outgoing, destination: str) -> None:
        if not transfer.reserved:
            transfer.reserved = self._write(destination, transfer.manifest, [])
        while transfer.may_send and self._write(destination, *transfer.queue[0]):
            record, _ = transfer.queue.popleft()
            transfer.moved = self._clock()
            if isinstance(record, Chunk):
                transfer.sent += 1
                self._plant.moment("chunk")
            else:
                transfer.committed = True
                self._publish_beats()
                self._plant.moment("commit")

    def _matches(self, number: int, nonce: bytes) -> bool:
        """Whether a record is of a transfer that is open here, which then gets on."""
        matches = number in self._open and self._open[number].binding.nonce == nonce
        if matches:
            self._open[number].moved = self._clock()
        return matches

    def _write(self, destination: str, record: KvRecord, payload: list[Any]) -> bool:
        return self.channels[destination].send(KV_FRAME, msgspec.msgpack.encode(record), payload)

    def _give_up(self, transfer: Outgoing, error: TransferError) -> None:
        """A fault found at this end: the engine is told, and the destination."""
        self._fail(transfer.binding.transfer, error.cause, error.message)
        self._tell_abort(transfer, error.cause)

    def _tell_abort(self, transfer: Outgoing, reason: str) -> None:
        binding = transfer.binding
        if binding.destination in self.channels and transfer.reserved:
            try:
                self._write(binding.destination, Abort(transfer=binding.transfer, nonce=binding.nonce, reason=reason), [])
            except TransferError as error:
                self.channel_lost(binding.destination, error.message)

    def _fail(self, number: int, cause: str, message: str) -> None:
        self._report_failure(self._close(number).binding, cause, message)

    def _close(self, number: int) -> Outgoing:
        transfer = self._open.pop(number)
        self._publish_beats()
        return transfer

    def _publish_beats(self) -> None:
        """Leases are renewed from the grant to the commit: what is owed after that comes within one, or not at all."""
        self._renewer.beats = tuple(
            Beat(
                self.channels[item.binding.destination],
                KV_FRAME,
                msgspec.msgpack.encode(Renew(transfer=item.binding.transfer, nonce=item.binding.nonce)),
                item.binding.lease / RENEWALS,
            )
            for item in self._open.values()
            if item.credits and not item.committed and item.binding.destination in self.channels
        )

    def _report_failure(self, binding: TransferBinding, cause: str, message: str) -> None:
        self._report(KvFailed(transfer=binding.transfer, sequence=binding.sequence, cause=cause, message=message))
