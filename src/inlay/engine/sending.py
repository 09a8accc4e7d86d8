"""The source's end of KV transfers: reserve, seal each prompt chunk as it is computed, send, commit, await the answer.

A row names the scheduler's transfer; its pages go out on every part of it that this process holds, each with its layers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inlay.engine.pages import PAYLOAD_TARGET, Root, chunk_bytes, common_layers, seal, token_bytes
from inlay.engine.runner import Runner
from inlay.errors import TransferError
from inlay.specs.device import DeviceToEngine, KvFailed, KvSent, OpenTransfer, Row, SlotAddress, TransferBinding
from inlay.specs.kv import KV_FORMAT_VERSION, KV_LAYOUT, Abort, Acknowledge, Chunk, Commit, Grant, KvRecord, Refuse, Reserve
from inlay.specs.stage import StageShape
from inlay.transport import Channel

KV_FRAME = 2
Frame = tuple[KvRecord, list[Any]]


@dataclass(slots=True, eq=False)
class Outgoing:
    """One transfer at its source. `queue` holds sealed copies, so the slot may be rewritten at any time."""

    manifest: Reserve
    root: Root
    own: range
    reserved: bool = False
    granted: bool = False
    chunks: int = 0
    bytes: int = 0
    queue: deque[Frame] = field(default_factory=deque)

    @property
    def binding(self) -> TransferBinding:
        """What ties it to its request."""
        return self.manifest.binding


class Sender:
    """All outgoing transfers of one device process."""

    def __init__(
        self,
        runner: Runner,
        stage: StageShape,
        *,
        model_digest: str,
        key: bytes,
        connect: Callable[[str], None],
        report: Callable[[DeviceToEngine], None],
    ) -> None:
        self._runner = runner
        self._stage = stage
        self._model_digest = model_digest
        self._key = key
        self._connect = connect
        self._report = report
        self._open: dict[int, Outgoing] = {}
        self._connecting: set[str] = set()
        self.channels: dict[str, Channel] = {}

    @property
    def waiting(self) -> bool:
        """Whether sealed pages wait for room in a channel."""
        return any((item.granted and item.queue) or not item.reserved for item in self._open.values())

    def open(self, message: OpenTransfer) -> None:
        """Ask the destination for room. A destination that cannot be reached is a failed transfer, at once."""
        binding = message.binding
        try:
            own = common_layers(self._stage, binding.layers)
        except TransferError as error:
            self._report_failure(binding, error.cause, error.message)
            return
        layers = self._stage.layers[own.start : own.stop]
        manifest = Reserve(
            version=KV_FORMAT_VERSION,
            model_digest=self._model_digest,
            binding=binding,
            layers=layers,
            dtype="float32",
            layout=KV_LAYOUT,
            bytes_expected=chunk_bytes(layers, binding.tokens),
        )
        self._open[binding.transfer] = Outgoing(manifest=manifest, root=Root(manifest, self._key), own=own)
        destination = binding.destination
        if destination not in self.channels and destination not in self._connecting:
            self._connecting.add(destination)
            self._connect(destination)
        self.flush()

    def connected(self, destination: str, channel: Channel) -> None:
        """The channel that `connect` was asked for is there."""
        self._connecting.discard(destination)
        self.channels[destination] = channel
        self.flush()

    def row_done(self, row: Row, slot: SlotAddress) -> None:
        """Seal and queue the rows a batch has just written, in frames of bounded size; the last row commits."""
        if row.transfer is None:
            return
        for transfer in self._open.values():
            binding = transfer.binding
            if row.transfer == (binding.transfer if binding.part_of is None else binding.part_of):
                self._seal(transfer, row, slot)
        self.flush()

    def _seal(self, transfer: Outgoing, row: Row, slot: SlotAddress) -> None:
        step = max(1, PAYLOAD_TARGET // token_bytes(transfer.manifest.layers))
        end = row.past_length + len(row.tokens)
        for start in range(row.past_length, end, step):
            count = min(step, end - start)
            arrays, crcs = seal(self._runner.export_kv(slot, start, count, transfer.own))
            transfer.root.add(start, count, crcs)
            chunk = Chunk(
                transfer=transfer.binding.transfer,
                nonce=transfer.binding.nonce,
                number=transfer.chunks,
                start=start,
                tokens=count,
                crcs=crcs,
            )
            transfer.chunks += 1
            transfer.bytes += sum(array.nbytes for array in arrays)
            transfer.queue.append((chunk, arrays))
        if row.commit:
            transfer.queue.append((self._commit(transfer), []))

    def flush(self) -> None:
        """Send what has been granted, as far as the channels take it."""
        for transfer in list(self._open.values()):
            destination = transfer.binding.destination
            if destination not in self.channels:
                continue
            try:
                transfer.reserved = transfer.reserved or self._write(destination, transfer.manifest, [])
                while transfer.granted and transfer.queue and self._write(destination, *transfer.queue[0]):
                    transfer.queue.popleft()
            except TransferError as error:
                self.channel_lost(destination, error.message)

    def receive(self, record: KvRecord) -> None:
        """A record that came back from a destination."""
        match record:
            case Grant(transfer=number, nonce=nonce) if self._matches(number, nonce):
                self._open[number].granted = True
                self.flush()
            case Refuse(transfer=number, cause=cause, message=message) if number in self._open:
                self._fail(number, cause, message)
            case Acknowledge(transfer=number, nonce=nonce, cause=cause, message=message) if self._matches(number, nonce):
                if cause:
                    self._fail(number, cause, message)
                else:
                    done = self._open.pop(number)
                    self._report(KvSent(transfer=number, sequence=done.binding.sequence, size=done.bytes))
            case _:
                return

    def abort(self, number: int, reason: str) -> None:
        """The engine gives the transfer up; the destination is told."""
        transfer = self._open.pop(number, None)
        if transfer is not None and transfer.binding.destination in self.channels:
            try:
                self._write(
                    transfer.binding.destination, Abort(transfer=number, nonce=transfer.binding.nonce, reason=reason), []
                )
            except TransferError as error:
                self.channel_lost(transfer.binding.destination, error.message)

    def channel_lost(self, destination: str, message: str) -> None:
        """All transfers to a destination fail with its channel (or because there is none); the next one connects anew."""
        self._connecting.discard(destination)
        channel = self.channels.pop(destination, None)
        if channel is not None:
            channel.close()
        for number, transfer in list(self._open.items()):
            if transfer.binding.destination == destination:
                self._fail(number, "channel_lost", message)

    def _commit(self, transfer: Outgoing) -> Commit:
        return Commit(
            transfer=transfer.binding.transfer,
            nonce=transfer.binding.nonce,
            chunks=transfer.chunks,
            size=transfer.bytes,
            root=transfer.root.value(),
        )

    def _matches(self, number: int, nonce: bytes) -> bool:
        return number in self._open and self._open[number].binding.nonce == nonce

    def _write(self, destination: str, record: KvRecord, payload: list[Any]) -> bool:
        return self.channels[destination].send(KV_FRAME, msgspec.msgpack.encode(record), payload)

    def _fail(self, number: int, cause: str, message: str) -> None:
        self._report_failure(self._open.pop(number).binding, cause, message)

    def _report_failure(self, binding: TransferBinding, cause: str, message: str) -> None:
        self._report(KvFailed(transfer=binding.transfer, sequence=binding.sequence, cause=cause, message=message))
