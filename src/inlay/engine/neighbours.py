"""Activations between the processes of one replica: the hidden state comes in from the piece before and goes out to the
piece after, each batch under its number, on channels of their own that are read also while a batch runs.

Used by the device process; of a process that owns all layers it is empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from inlay.errors import DeviceError, TransferError
from inlay.specs.stage import StageShape
from inlay.transport import Arrival, Channel, NamedArray, RunFailed, TensorAssembler, TensorSender

Array = np.ndarray[Any, Any]
HIDDEN = "hidden"


class Neighbours:
    """The two ends of one process's place in the chain; `before` and `after` are places, empty at the model's ends."""

    def __init__(self, stage: StageShape, *, before: str, after: str) -> None:
        if (before == "") != stage.begins or (after == "") != stage.ends:
            layers = f"layers {stage.first} to {stage.first + len(stage.layers)} of {stage.depth}"
            raise DeviceError(
                f"{layers} have {before or 'nobody'!r} before and {after or 'nobody'!r} after them, "
                "expected a process exactly where the model goes on"
            )
        self._before, self._after = before, after
        self._incoming: Channel | None = None
        self._outgoing: Channel | None = None
        self._sender: TensorSender | None = None
        self._assembler = TensorAssembler()
        self._came: dict[int, Array | RunFailed] = {}
        self._awaited: float = -math.inf

    @property
    def complete(self) -> bool:
        """Whether every neighbour that there must be is connected."""
        return (self._before == "" or self._incoming is not None) and (self._after == "" or self._outgoing is not None)

    @property
    def waiting(self) -> bool:
        """Whether something to send waits for room."""
        return self._sender is not None and self._sender.waiting

    def connected(self, arrival: Arrival) -> bool:
        """Take a channel that the door has brought; False for one that is nobody's place, which is closed."""
        channel = arrival.channel
        if channel is None:
            raise DeviceError(f"{arrival.peer or 'a neighbour'} cannot be reached: {arrival.reason}")
        if arrival.incoming and arrival.peer == self._before and self._incoming is None:
            self._incoming = channel
        elif not arrival.incoming and arrival.peer == self._after and self._outgoing is None:
            self._outgoing, self._sender = channel, TensorSender(channel)
        else:
            channel.close()
            return False
        return True

    def receive(self) -> None:
        """Read what has come and send on what waits. Raises TransferError that names the neighbour that has gone."""
        for place, channel in self._channels():
            try:
                while (frame := channel.receive()) is not None:
                    if channel is self._outgoing:
                        raise TransferError(f"a frame of kind {frame.kind} came back, expected none", cause="kind")
                    self._keep(self._assembler.take(frame))
                    del frame
                self.flush()
            except TransferError as error:
                raise TransferError(f"{place}: {error.message}", cause=error.cause) from error

    def take(self, batch: int) -> Array | RunFailed | None:
        """The hidden state [B, T, d] of this batch, or why there is none, or None while it must still come.

        Batches are taken in the order of their numbers; what came for an earlier one, which nobody waits for, is dropped.
        """
        self._awaited = batch
        self._came = {number: item for number, item in self._came.items() if number >= batch}
        return self._came.pop(batch, None)

    def send(self, batch: int, hidden: Array) -> None:
        """Send a hidden state on, as far as there is room now."""
        if self._sender is not None:
            self._sender.send(hidden, name=HIDDEN, run=batch)

    def fail(self, batch: int, *, code: str, message: str) -> None:
        """Tell the piece after that this batch does not come."""
        if self._sender is not None:
            self._sender.fail(batch, code=code, message=message)

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        if self._sender is not None:
            self._sender.flush()

    def close(self) -> None:
        """Let the neighbours know that this process ends."""
        for _, channel in self._channels():
            channel.close()

    def _channels(self) -> Iterator[tuple[str, Channel]]:
        if self._incoming is not None:
            yield self._before, self._incoming
        if self._outgoing is not None:
            yield self._after, self._outgoing

    def _keep(self, item: NamedArray | RunFailed | None) -> None:
        if isinstance(item, NamedArray) and item.name != HIDDEN:
            raise TransferError(f"array {item.name!r} came, expected {HIDDEN!r}", cause="name")
        if item is not None and item.run >= self._awaited:
            self._came[item.run] = item.array if isinstance(item, NamedArray) else item
