"""Between the scheduler's runners and the processes that make them up: one message to a runner becomes one to each of its
processes, their answers become one event. Pure: a state machine without I/O, between `EngineLoop` and the `DeviceLink`s.

A runner is one replica of a role; each of its processes owns a run of layers (a region). A hand-off between two runners
becomes a part for each pair of regions that have layers in common, so the two may cut the layers differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from inlay.errors import DeviceError
from inlay.specs.device import (
    AbortTransfer,
    BatchDone,
    BatchFailed,
    DeviceToEngine,
    Draft,
    DraftDone,
    EngineToDevice,
    ExpectTransfer,
    KvArrived,
    KvFailed,
    KvSent,
    OpenTransfer,
    Ready,
    Submit,
    TransferBinding,
)
from inlay.specs.rounds import ROUNDS
from inlay.specs.schedule import Answered, Lost, RunnerFacts

ENDED = "another part of its hand-off failed"


class Region(NamedTuple):
    """One process of a runner: its place, the epoch it was started with, and its layers, `first` to `end` not included."""

    place: str
    epoch: int
    first: int
    end: int

    @classmethod
    def of(cls, process: Ready) -> Region:
        """As the process itself says."""
        first = process.stage.first
        return cls(process.place, process.epoch, first, first + len(process.stage.layers))


def join_facts(runner: str, processes: Sequence[Ready], *, roles: tuple[str, ...], chunk: int) -> RunnerFacts:
    """What the scheduler is told of a runner: what all of its processes take. `chunk` is the widest prompt piece wanted.

    Raises DeviceError where their layers do not make one model, each layer once and in order.
    """
    at = 0
    for item in processes:
        if item.stage.first != at:
            raise DeviceError(f"{item.place} owns layers from {item.stage.first}, expected from {at} in {runner}")
        at += len(item.stage.layers)
    if not processes[-1].stage.ends:
        raise DeviceError(f"{runner} ends with layer {at - 1} of {processes[-1].stage.depth}, expected all layers")
    batches = [set(item.batches) for item in processes if item.batches]
    common = set.intersection(*batches) if batches else set()
    if batches and not common:
        raise DeviceError(f"the processes of {runner} have no batch size in common: {[item.batches for item in processes]}")
    return RunnerFacts(
        runner=runner,
        device="+".join(item.place.partition("/")[0] for item in processes),
        kv_bytes=sum(4 * item.stage.kv_elements_per_token() for item in processes),
        epoch=max(item.epoch for item in processes),
        roles=roles,
        capacities=processes[0].capacities,
        rooms=processes[0].rooms,
        slots=min(item.slots for item in processes),
        page=processes[0].page,
        pages=min(item.pages for item in processes),
        chunk=min([chunk, *(max(item.widths) for item in processes if item.widths)]),
        paged=all("paged" in item.abilities for item in processes),
        keeps=processes[0].keeps,
        batches=tuple(sorted(common)),
        rounds=ROUNDS if len(processes) == 1 else 1,
    )


class Tell(NamedTuple):
    """Give the process at this place this message."""

    place: str
    message: EngineToDevice


Outcome = Tell | Answered | Lost


@dataclass(slots=True, eq=False)
class _Batch:
    """A batch in flight: what each process of its runner has reported so far."""

    runner: str
    done: dict[str, BatchDone] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Transfer:
    """A hand-off as the scheduler knows it, its parts by their numbers, and what has been said of each."""

    number: int
    source: str
    destination: str
    parts: dict[int, TransferBinding]
    arrived: dict[int, KvArrived] = field(default_factory=dict)
    sent: dict[int, KvSent] = field(default_factory=dict)


class Replicas:
    """All runners of one engine. `regions` gives the processes of each, in the order of their layers."""

    def __init__(self, regions: Mapping[str, Sequence[Region]]) -> None:
        self._regions = {runner: tuple(items) for runner, items in regions.items()}
        self._runners = {item.place: runner for runner, items in regions.items() for item in items}
        self._lost: set[str] = set()
        self._batches: dict[int, _Batch] = {}
        self._transfers: dict[int, _Transfer] = {}
        self._parts: dict[int, _Transfer] = {}
        self._next_part = 0

    def send(self, runner: str, message: EngineToDevice) -> list[Tell]:
        """What the processes are told when the scheduler tells their runner this; nothing for a lost one."""
        if runner in self._lost:
            return []
        match message:
            case ExpectTransfer(binding=binding):
                parts = self._divide(binding).parts.values()
                return [Tell(part.destination, msgspec.structs.replace(message, binding=part)) for part in parts]
            case OpenTransfer(binding=binding, slot=slot):
                transfer = self._transfers.get(binding.transfer) or self._divide(binding)
                return [Tell(part.source, OpenTransfer(binding=part, slot=slot)) for part in transfer.parts.values()]
            case AbortTransfer(transfer=number, reason=reason):
                return self._give_up(self._transfers.get(number), reason)
            case Submit(batch=number) | Draft(batch=number):
                self._batches[number] = _Batch(runner)
        return [Tell(item.place, message) for item in self._regions[runner]]

    def heard(self, place: str, message: DeviceToEngine) -> list[Outcome]:
        """What follows when a process says this: nothing yet, or an event for the scheduler."""
        runner = self._runners[place]
        if runner in self._lost:
            return []
        match message:
            case BatchDone():
                return self._done(runner, place, message)
            case DraftDone(batch=number):
                return [Answered(runner, message)] if self._batches.pop(number, None) is not None else []
            case BatchFailed(batch=number):
                return [Answered(runner, message)] if self._batches.pop(number, None) is not None else []
            case KvArrived(transfer=part) if part in self._parts:
                return self._arrived(self._parts[part], message)
            case KvSent(transfer=part) if part in self._parts:
                return self._sent(self._parts[part], message)
            case KvFailed(transfer=part) if part in self._parts:
                transfer = self._parts[part]
                told = msgspec.structs.replace(message, transfer=transfer.number)
                return [*self._give_up(transfer, ENDED), Answered(runner, told)]
            case _:
                return []

    def lost(self, place: str, reason: str) -> list[Outcome]:
        """A process has gone: its runner is lost with it, once."""
        runner = self._runners[place]
        if runner in self._lost:
            return []
        self._lost.add(runner)
        self._batches = {number: batch for number, batch in self._batches.items() if batch.runner != runner}
        given_up: list[Outcome] = []
        for transfer in list(self._transfers.values()):
            if runner in (transfer.source, transfer.destination):
                given_up += self._give_up(transfer, f"{place} was lost")
        told = reason if len(self._regions[runner]) == 1 else f"{place}: {reason}"
        return [*given_up, Lost(runner, told)]

    @property
    def open(self) -> int:
        """Batches and transfers that are not over yet (for tests of restoration)."""
        return len(self._batches) + len(self._transfers) + len(self._parts)

    def _done(self, runner: str, place: str, message: BatchDone) -> list[Outcome]:
        batch = self._batches.get(message.batch)
        if batch is None:
            return []
        if message.more:
            return [Answered(runner, message)]
        batch.done[place] = message
        regions = self._regions[runner]
        if len(batch.done) < len(regions):
            return []
        del self._batches[message.batch]
        joined = msgspec.structs.replace(
            batch.done[regions[-1].place],
            started=min(item.started for item in batch.done.values()),
            ended=max(item.ended for item in batch.done.values()),
        )
        return [Answered(runner, joined)]

    def _divide(self, binding: TransferBinding) -> _Transfer:
        """The parts of a transfer: one for each pair of regions with layers in common."""
        parts = {}
        for source in self._regions[binding.source]:
            for destination in self._regions[binding.destination]:
                first, end = max(source.first, destination.first), min(source.end, destination.end)
                if first < end:
                    parts[self._next_part] = msgspec.structs.replace(
                        binding,
                        transfer=self._next_part,
                        source=source.place,
                        source_epoch=source.epoch,
                        destination=destination.place,
                        destination_epoch=destination.epoch,
                        part_of=binding.transfer,
                        layers=(first, end),
                    )
                    self._next_part += 1
        transfer = _Transfer(binding.transfer, binding.source, binding.destination, parts)
        self._transfers[transfer.number] = transfer
        self._parts |= dict.fromkeys(parts, transfer)
        return transfer

    def _arrived(self, transfer: _Transfer, message: KvArrived) -> list[Outcome]:
        transfer.arrived[message.transfer] = message
        if len(transfer.arrived) < len(transfer.parts):
            return []
        parts = transfer.arrived.values()
        joined = KvArrived(
            transfer=transfer.number,
            sequence=message.sequence,
            tokens=message.tokens,
            size=sum(item.size for item in parts),
            chunks=sum(item.chunks for item in parts),
            started=min(item.started for item in parts),
            ended=max(item.ended for item in parts),
            conversion=message.conversion,
            inexact=sum(item.inexact for item in parts),
        )
        self._close(transfer)
        return [Answered(transfer.destination, joined)]

    def _sent(self, transfer: _Transfer, message: KvSent) -> list[Outcome]:
        transfer.sent[message.transfer] = message
        if len(transfer.sent) < len(transfer.parts):
            return []
        size = sum(item.size for item in transfer.sent.values())
        self._close(transfer)
        return [Answered(transfer.source, KvSent(transfer=transfer.number, sequence=message.sequence, size=size))]

    def _close(self, transfer: _Transfer) -> None:
        """Forget a transfer of which both ends have said that it is over."""
        if len(transfer.arrived) == len(transfer.sent) == len(transfer.parts):
            self._forget(transfer)

    def _give_up(self, transfer: _Transfer | None, reason: str) -> list[Tell]:
        """Abort every part at both ends that are left; an end that has given it up itself is none the worse."""
        if transfer is None:
            return []
        self._forget(transfer)
        ends = [(end, number) for number, part in transfer.parts.items() for end in (part.destination, part.source)]
        return [
            Tell(place, AbortTransfer(transfer=number, reason=reason))
            for place, number in ends
            if self._runners[place] not in self._lost
        ]

    def _forget(self, transfer: _Transfer) -> None:
        self._transfers.pop(transfer.number, None)
        for number in transfer.parts:
            self._parts.pop(number, None)
