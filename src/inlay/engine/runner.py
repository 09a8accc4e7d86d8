"""The generic runner: batches of rows through the stage program `extend`, or a piece of it, and the KV of its layers.

It obeys: slots, lengths and order come from the scheduler. It owns the bytes only. Called by the device process.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

import numpy as np

from inlay.backends import Buffer, Executable
from inlay.engine.sampler import score
from inlay.engine.verifying import verify
from inlay.errors import DeviceError, InlayError
from inlay.specs.artifact import ShapeBuckets
from inlay.specs.device import BatchDone, BatchFailed, KvPlace, Row, RowResult, SlotAddress, Submit
from inlay.specs.stage import StageShape

Array = np.ndarray[Any, Any]
DYNAMIC_STEP = 16
"""Widths between 16 and the chunk are padded to a multiple of this: fewer distinct shapes for the framework."""
NO_PAST = 16
"""Rows of past bound for a batch in which nobody has one."""


LOGIT_STEP = 8
"""With drafts in a batch, logit rows are padded to a multiple of this, for the same reason."""


class Runner(Protocol):
    """What a device process does with its layers of an LLM role. Asynchronous: `submit` begins, `poll` ends.

    Layers are named by their numbers among its own, from 0; None = all of them.
    """

    abilities: tuple[str, ...]
    immediate: bool
    prompt_tokens: int
    rows_run: int
    hidden: Array | None

    def submit(self, batch: Submit, hidden: Array | None = None) -> None:
        """Begin a batch; one at a time. `hidden` [B, T, d] is what the piece before gave, where there is one."""

    def poll(self) -> BatchDone | BatchFailed | None:
        """The end of the batch begun last, once. `hidden` is then what the piece after must be given, if there is one."""

    def logits_of(self, sequence: int) -> Array:
        """The last token's logits [V] of a row of the batch that ended last, where the model ends here."""

    def export_kv(self, place: KvPlace, start: int, count: int, layers: range | None = None) -> list[tuple[Array, Array]]:
        """Per layer (keys, values) as [token, head, dim], fresh and contiguous."""

    def import_kv(self, place: KvPlace, start: int, pages: Sequence[tuple[Array, Array]], layers: range | None = None) -> None:
        """The inverse of `export_kv`: write rows from `start` on."""

    def written(self, place: KvPlace, start: int) -> Sequence[Hashable]:
        """What rows from `start` on lie in: whoever writes them must have it alone."""

    def move(self, source: SlotAddress, destination: SlotAddress, length: int) -> None:
        """Copy the first `length` rows of a slot to another one."""

    def memory(self) -> dict[str, int]:
        """Bytes by name."""


class ExtendRunner:
    """Runs `extend`, or a piece of it, with the past bound in place to the pool: per capacity and own layer one
    [slots, heads, P, dim], with as many slots as `rooms` says for the capacity. A hidden state travels in the batch's own
    width; each piece pads it to a width that it runs."""

    abilities: tuple[str, ...] = ("extend", "verify", "export_kv", "top_n")

    def __init__(
        self, executable: Executable, stage: StageShape, *, rooms: Mapping[int, int], buckets: ShapeBuckets | None
    ) -> None:
        self._executable = executable
        self._stage = stage
        self._rooms = dict(rooms)
        self._widths = () if buckets is None else buckets.widths
        self._pools: dict[int, list[Buffer]] = {
            capacity: self._allocate_pool(capacity, count) for capacity, count in rooms.items()
        }
        self._views: dict[tuple[int, int, int], list[Buffer]] = {}
        self._ports: dict[tuple[int, tuple[int, ...]], Buffer] = {}
        self._batch: Submit | None = None
        self._ended: Submit | None = None
        self._read: Array | None = None
        self._logits = 0
        self._offsets: dict[int, int] = {}
        self._started = 0.0
        self._failure: BatchFailed | None = None
        self.hidden: Array | None = None
        self.prompt_tokens = 0
        self.rows_run = 0
        self.immediate = getattr(executable, "start", None) is None
        """Whether a batch has run when `submit` returns."""

    def submit(self, batch: Submit, hidden: Array | None = None) -> None:
        """Bind, write the small inputs and begin; a failure to begin is reported by `poll`."""
        self._batch, self._started, self._failure, self.hidden = batch, monotonic(), None, None
        try:
            sizes = self._prepare(batch, hidden)
            start = getattr(self._executable, "start", None)
            if start is None:
                self._executable.run(sizes)
            else:
                start(sizes)
        except InlayError as error:
            self._failure = BatchFailed(batch=batch.batch, code=error.code, message=error.message)

    def poll(self) -> BatchDone | BatchFailed | None:
        """Write the new rows into the pool, sample, and report; None while an asynchronous run goes on."""
        batch = self._batch
        if batch is None:
            return None
        try:
            if self._failure is None and not getattr(self._executable, "done", bool_true)():
                return None
            outcome = self._failure or self._complete(batch)
        except (InlayError, ValueError) as error:
            code = error.code if isinstance(error, InlayError) else "bad_logits"
            outcome = BatchFailed(batch=batch.batch, code=code, message=str(error))
        self._batch, self._ended, self._read = None, batch, None
        return outcome

    def logits_of(self, sequence: int) -> Array:
        """The last token's logits [V] of a row of the batch that ended last, where the model ends here."""
        batch = self._ended
        if batch is None or sequence not in self._offsets:
            raise DeviceError(f"the last batch has no row of sequence {sequence}")
        if self._read is None:
            self._read = self._result(batch).read()
        logits: Array = self._read[self._offsets[sequence]]
        return logits

    def export_kv(self, place: KvPlace, start: int, count: int, layers: range | None = None) -> list[tuple[Array, Array]]:
        """See Runner."""
        slot = _slot(place)
        part = (slice(slot.index, slot.index + 1), slice(None), slice(start, start + count), slice(None))
        pool, depth = self._pools[slot.capacity], len(self._stage.layers)
        own = range(depth) if layers is None else layers
        return [(_tokens_first(pool[i].read(part)), _tokens_first(pool[depth + i].read(part))) for i in own]

    def import_kv(self, place: KvPlace, start: int, pages: Sequence[tuple[Array, Array]], layers: range | None = None) -> None:
        """See Runner."""
        slot = _slot(place)
        pool, depth = self._pools[slot.capacity], len(self._stage.layers)
        for layer, (keys, values) in zip(range(depth) if layers is None else layers, pages, strict=True):
            pool[layer].write(_heads_first(keys), (slot.index, 0, start, 0))
            pool[depth + layer].write(_heads_first(values), (slot.index, 0, start, 0))

    def written(self, place: KvPlace, start: int) -> Sequence[Hashable]:
        """See Runner."""
        return (_slot(place),)

    def move(self, source: SlotAddress, destination: SlotAddress, length: int) -> None:
        """See Runner."""
        if length:
            self.import_kv(destination, 0, self.export_kv(source, 0, length))

    def memory(self) -> dict[str, int]:
        """Bytes of the KV pool of its layers as declared (pages that no sequence has touched are not resident on a host)."""
        rows = sum(capacity * count for capacity, count in self._rooms.items())
        return {"kv_pool": 4 * self._stage.kv_elements_per_token() * rows}

    def _allocate_pool(self, capacity: int, slots: int) -> list[Buffer]:
        allocate, stage = self._executable.allocate, self._stage
        keys = [
            allocate(stage.past_key(i), (slots, layer.key_heads, capacity, layer.key_dim))
            for i, layer in enumerate(stage.layers)
        ]
        values = [
            allocate(stage.past_value(i), (slots, layer.value_heads, capacity, layer.value_dim))
            for i, layer in enumerate(stage.layers)
        ]
        return keys + values

    def _width(self, width: int) -> int:
        if self._widths:
            return next((item for item in self._widths if item >= width), width)
        return width if width <= DYNAMIC_STEP else -(-width // DYNAMIC_STEP) * DYNAMIC_STEP

    def _port(self, port: int, shape: tuple[int, ...]) -> Buffer:
        buffer = self._ports.get((port, shape))
        if buffer is None:
            buffer = self._ports[port, shape] = self._executable.allocate(port, shape)
        return buffer

    def _prepare(self, batch: Submit, hidden: Array | None) -> dict[str, int]:
        stage, count, width = self._stage, batch.count, self._width(batch.width)
        tokens = np.zeros((count, width), np.int64)
        lengths = np.zeros((count,), np.int64)
        for row in batch.rows:
            at = row.slot - batch.first
            tokens[at, : len(row.tokens)] = row.tokens
            lengths[at] = row.past_length
        self._feed(stage.entry, tokens if stage.begins else self._padded(batch, hidden))
        self._feed(stage.past_lengths, lengths)
        sizes = {"B": count, "T": width, "P": self._bind_past(batch)}
        if stage.ends:
            wanted = self._logit_rows(batch, width)
            self._feed(stage.logit_rows, wanted)
            sizes["R"] = self._logits = len(wanted)
        self._executable.bind(stage.result, self._result(batch))
        for port, new_shape in self._new_ports(count, width):
            self._executable.bind(port, self._port(port, new_shape))
        return sizes

    def _logit_rows(self, batch: Submit, width: int) -> Array:
        """Which rows of the flattened [B*T] give logits: one for each slot, or, with drafts or targets in the batch, those
        that each row needs, in order; a framework of declared sizes then gives all. `_offsets` says where each row's begin."""
        self._offsets = {}
        if not any(row.drafts or row.targets for row in batch.rows):
            wanted = np.arange(batch.count) * width
            for row in batch.rows:
                at = row.slot - batch.first
                wanted[at] += len(row.tokens) - 1
                self._offsets[row.sequence] = at
            return wanted
        rows: list[int] = []
        for row in batch.rows:
            start = (row.slot - batch.first) * width
            wanted_rows = range(start + first_wanted(row), start + len(row.tokens))
            self._offsets[row.sequence] = wanted_rows.start if self._widths else len(rows)
            rows += wanted_rows
        if self._widths:
            return np.arange(batch.count * width)
        rows += [0] * (-len(rows) % LOGIT_STEP)
        return np.array(rows, np.int64)

    def _feed(self, port: int, array: Array) -> None:
        buffer = self._port(port, array.shape)
        buffer.write(array)
        self._executable.bind(port, buffer)

    def _padded(self, batch: Submit, hidden: Array | None) -> Array:
        """The hidden state in the width that this piece runs; zeros beyond the batch's own."""
        expected = (batch.count, batch.width, self._stage.hidden)
        if hidden is None or hidden.shape != expected or hidden.dtype != np.float32:
            found = "none" if hidden is None else f"{hidden.dtype} {list(hidden.shape)}"
            raise DeviceError(f"hidden state of batch {batch.batch} is {found}, expected float32 {list(expected)}")
        padded = np.zeros((batch.count, self._width(batch.width), self._stage.hidden), np.float32)
        padded[:, : batch.width] = hidden
        return padded

    def _result(self, batch: Submit) -> Buffer:
        """The buffer of the logits, or of the hidden state for the piece after."""
        stage = self._stage
        shape = (self._logits, stage.vocabulary) if stage.ends else (batch.count, self._width(batch.width), stage.hidden)
        return self._port(stage.result, shape)

    def _new_ports(self, count: int, width: int) -> Sequence[tuple[int, tuple[int, ...]]]:
        """Output ports of the new keys of all layers, then of the new values, with their shapes."""
        stage = self._stage
        keys = [(stage.new_key(i), (count, item.key_heads, width, item.key_dim)) for i, item in enumerate(stage.layers)]
        values = [(stage.new_value(i), (count, item.value_heads, width, item.value_dim)) for i, item in enumerate(stage.layers)]
        return keys + values

    def _bind_past(self, batch: Submit) -> int:
        """Bind the batch's slots, or next to nothing where no row has a past: attention goes over all of a capacity, full or
        not. A framework of declared sizes keeps to them. Returns the rows bound."""
        if not self._widths and not any(row.past_length for row in batch.rows):
            self._bind_no_past(batch.count)
            return NO_PAST
        key = (batch.capacity, batch.first, batch.count)
        views = self._views.get(key)
        if views is None:
            views = [pool.rows(batch.first, batch.count) for pool in self._pools[batch.capacity]]
            self._views[key] = views
        for offset, view in enumerate(views):
            self._executable.bind(self._stage.past_key(0) + offset, view)
        return batch.capacity

    def _bind_no_past(self, count: int) -> None:
        stage = self._stage
        for index, layer in enumerate(stage.layers):
            key, value = stage.past_key(index), stage.past_value(index)
            self._executable.bind(key, self._port(key, (count, layer.key_heads, NO_PAST, layer.key_dim)))
            self._executable.bind(value, self._port(value, (count, layer.value_heads, NO_PAST, layer.value_dim)))

    def _complete(self, batch: Submit) -> BatchDone:
        stage, width = self._stage, self._width(batch.width)
        counts = [0] * batch.count
        starts = [0] * batch.count
        for row in batch.rows:
            counts[row.slot - batch.first], starts[row.slot - batch.first] = len(row.tokens), row.past_length
        slots = list(range(batch.first, batch.first + batch.count))
        for pool, (port, shape) in zip(self._pools[batch.capacity], self._new_ports(batch.count, width), strict=True):
            pool.place(self._port(port, shape), rows=slots, starts=starts, counts=counts)
        if stage.ends:
            results = self._sample(batch, self._result(batch))
        else:
            self.hidden = self._result(batch).read((slice(None), slice(0, batch.width)))
            results = tuple(RowResult(sequence=row.sequence) for row in batch.rows)
        prompt = sum(row.prompt for row in batch.rows)
        self.prompt_tokens += prompt
        self.rows_run += len(batch.rows)
        return BatchDone(batch=batch.batch, results=results, started=self._started, ended=monotonic(), prompt_tokens=prompt)

    def _sample(self, batch: Submit, logits: Buffer) -> tuple[RowResult, ...]:
        if all(row.sample is None and not row.targets for row in batch.rows):
            return tuple(RowResult(sequence=row.sequence) for row in batch.rows)
        values = logits.read()
        if any(row.targets for row in batch.rows):
            self._ports.pop((self._stage.result, values.shape), None)  # large, and rarely wanted
        return tuple(row_result(row, values[self._offsets[row.sequence] :]) for row in batch.rows)


def bool_true() -> bool:
    """A synchronous executable has always ended."""
    return True


def first_wanted(row: Row) -> int:
    """The first of the row's tokens whose logits are needed."""
    return 0 if row.targets else len(row.tokens) - 1 - row.drafts


def row_result(row: Row, logits: Array) -> RowResult:
    """`logits` begin with those after the first token that needs any."""
    targets = score(logits[: len(row.targets)], row.targets, top_n=row.target_top) if row.targets else ()
    if row.sample is None:
        return RowResult(sequence=row.sequence, targets=targets)
    own = logits[len(row.tokens) - 1 - row.drafts - first_wanted(row) :]
    return RowResult(sequence=row.sequence, sampled=verify(row, own, row.sample), targets=targets)


def _slot(place: KvPlace) -> SlotAddress:
    if not isinstance(place, SlotAddress):
        raise DeviceError(f"pages {list(place)} are named at a runner that keeps slots, expected a slot")
    return place


def _tokens_first(part: Array) -> Array:
    """[1, heads, tokens, dim] -> [tokens, heads, dim], contiguous."""
    return np.ascontiguousarray(part[0].transpose(1, 0, 2))


def _heads_first(page: Array) -> Array:
    """[tokens, heads, dim] -> [1, heads, tokens, dim]."""
    return page.transpose(1, 0, 2)[None]
