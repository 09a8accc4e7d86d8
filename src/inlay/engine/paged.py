"""The runner over KV pages: ragged batches of prompt chunks, decodes and verifies through the stage program `paged`.

It obeys: page tables, lengths and order come from the scheduler, and so does which pages sequences share. It owns the bytes
only. Called by the device process.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from time import monotonic
from typing import Any

import numpy as np

from inlay.backends import Buffer, Executable
from inlay.engine.runner import first_wanted, row_result
from inlay.errors import DeviceError, InlayError
from inlay.specs.device import BatchDone, BatchFailed, KvPlace, RowResult, SlotAddress, Submit
from inlay.specs.stage import PagedShape

Array = np.ndarray[Any, Any]


class PagedRunner:
    """Runs `paged` with the pool bound in place: per layer keys and values [pages, heads, page, dim]; see Runner."""

    abilities: tuple[str, ...] = ("extend", "verify", "export_kv", "top_n", "paged")

    def __init__(self, executable: Executable, shape: PagedShape, *, pages: int) -> None:
        self._executable = executable
        self._shape = shape
        self.pages = pages
        self._pools = self._allocate_pools()
        self._buffers: dict[int, Buffer] = {}
        self._batch: Submit | None = None
        self._started = 0.0
        self._failure: BatchFailed | None = None
        self._logits: Array | None = None
        self._offsets: list[int] = []
        self._ended: dict[int, int] = {}
        self.hidden: Array | None = None
        self.prompt_tokens = 0
        self.rows_run = 0
        self.immediate = getattr(executable, "start", None) is None

    def submit(self, batch: Submit, hidden: Array | None = None) -> None:
        """Bind, write the small inputs and begin; a failure to begin is reported by `poll`."""
        self._batch, self._started, self._failure = batch, monotonic(), None
        try:
            sizes = self._prepare(batch)
            start = getattr(self._executable, "start", None)
            if start is None:
                self._executable.run(sizes)
            else:
                start(sizes)
        except InlayError as error:
            self._failure = BatchFailed(batch=batch.batch, code=error.code, message=error.message)

    def poll(self) -> BatchDone | BatchFailed | None:
        """Sample and report; None while an asynchronous run goes on. The new rows are in their pages already."""
        batch = self._batch
        if batch is None:
            return None
        try:
            done = getattr(self._executable, "done", None)
            if self._failure is None and done is not None and not done():
                return None
            outcome = self._failure or self._complete(batch)
        except (InlayError, ValueError) as error:
            code = error.code if isinstance(error, InlayError) else "bad_logits"
            outcome = BatchFailed(batch=batch.batch, code=code, message=str(error))
        self._batch = None
        return outcome

    def logits_of(self, sequence: int) -> Array:
        """See Runner."""
        if sequence not in self._ended:
            raise DeviceError(f"the last batch has no row of sequence {sequence}")
        logits: Array = self._read()[self._ended[sequence]]
        return logits

    def export_kv(self, place: KvPlace, start: int, count: int, layers: range | None = None) -> list[tuple[Array, Array]]:
        """See Runner."""
        depth, runs = self._shape.depth, list(self._runs(place, start, count))
        found = []
        for layer in range(depth) if layers is None else layers:
            keys, values = (
                [self._pools[at].read(_part(page, at_row, rows))[0] for page, at_row, rows in runs]
                for at in (layer, depth + layer)
            )
            found.append((_joined(keys), _joined(values)))
        return found

    def import_kv(self, place: KvPlace, start: int, pages: Sequence[tuple[Array, Array]], layers: range | None = None) -> None:
        """See Runner."""
        depth = self._shape.depth
        for layer, pair in zip(range(depth) if layers is None else layers, pages, strict=True):
            for at, rows in zip((layer, depth + layer), pair, strict=True):
                done = 0
                for page, at_row, count in self._runs(place, start, rows.shape[0]):
                    part = np.ascontiguousarray(rows[done : done + count].transpose(1, 0, 2))[None]
                    self._pools[at].write(part, (page, 0, at_row, 0))
                    done += count

    def written(self, place: KvPlace, start: int) -> Sequence[Hashable]:
        """See Runner."""
        return (place.index,) if isinstance(place, SlotAddress) else place[start // self._shape.page :]

    def move(self, source: SlotAddress, destination: SlotAddress, length: int) -> None:
        """Copy the first `length` rows of a page to another one, before a sequence writes into a page that it shares."""
        if length:
            self.import_kv(destination, 0, self.export_kv(source, 0, length))

    def memory(self) -> dict[str, int]:
        """Bytes of the KV pool as declared (pages that no sequence has touched are not resident on a host)."""
        return {"kv_pool": 4 * self._shape.stage.kv_elements_per_token() * self.pages * self._shape.page}

    def _allocate_pools(self) -> list[Buffer]:
        """The pools of the keys of all layers, then of the values, bound for good."""
        shape, layers = self._shape, self._shape.stage.layers
        ports = [(shape.key_pages(i), item.key_heads, item.key_dim) for i, item in enumerate(layers)]
        ports += [(shape.value_pages(i), item.value_heads, item.value_dim) for i, item in enumerate(layers)]
        pools = []
        for port, heads, dim in ports:
            pools.append(self._executable.allocate(port, (self.pages, heads, shape.page, dim)))
            self._executable.bind(port, pools[-1])
        return pools

    def _runs(self, place: KvPlace, start: int, count: int) -> Iterator[tuple[int, int, int]]:
        """The rows `start` to `start + count` of a sequence as (page, first row in it, rows). Raises DeviceError."""
        size = self._shape.page
        table = (place.index,) if isinstance(place, SlotAddress) else place
        if start < 0 or start + count > size * len(table) or any(not 0 <= page < self.pages for page in table):
            raise DeviceError(
                f"rows {start} to {start + count} in pages {list(table)} of {size}, expected rows and pages there are"
            )
        end = start + count
        while start < end:
            rows = min(size - start % size, end - start)
            yield table[start // size], start % size, rows
            start += rows

    def _prepare(self, batch: Submit) -> dict[str, int]:
        shape, rows = self._shape, batch.rows
        self._check(batch)
        counts = np.array([len(row.tokens) for row in rows])
        pasts = np.array([row.past_length for row in rows])
        begins = np.concatenate([[0], np.cumsum(counts)])
        self._feed(shape.tokens, [token for row in rows for token in row.tokens])
        self._feed(shape.positions, np.arange(begins[-1]) + np.repeat(pasts - begins[:-1], counts))
        wanted = self._logit_rows(batch, begins)
        self._feed(shape.logit_rows, wanted)
        self._feed(shape.past_lengths, pasts)
        self._feed(shape.row_begins, begins)
        used = -(-(pasts + counts) // shape.page)
        self._feed(shape.pages, [page for row, count in zip(rows, used.tolist(), strict=True) for page in row.pages[:count]])
        self._feed(shape.page_begins, np.concatenate([[0], np.cumsum(used)]))
        self._feed(shape.longest, (pasts + counts).max())
        self._executable.bind(shape.result, self._room(shape.result, len(wanted), (shape.stage.vocabulary,)))
        return {"N": int(begins[-1]), "R": len(wanted), "B": len(rows), "G": int(used.sum()), "K": self.pages}

    def _check(self, batch: Submit) -> None:
        """Raise DeviceError for a page table that does not hold its row, or a page to be written that is listed twice."""
        if not batch.rows:
            raise DeviceError(f"batch {batch.batch} has no rows, expected at least one")
        size = self._shape.page
        for row in batch.rows:
            needed = -(-(row.past_length + len(row.tokens)) // size)
            if not row.tokens or len(row.pages) < needed or not 0 <= min(row.pages) <= max(row.pages) < self.pages:
                raise DeviceError(
                    f"sequence {row.sequence} of {row.past_length} + {len(row.tokens)} tokens has pages {list(row.pages)}, "
                    f"expected at least {needed} of 0 to {self.pages - 1}"
                )
        times = np.bincount([page for row in batch.rows for page in row.pages])
        for row in batch.rows:
            for page in row.pages[row.past_length // size :]:
                if times[page] > 1:
                    raise DeviceError(
                        f"sequence {row.sequence} would write page {page}, which is listed {times[page]} times in the batch",
                        hint="copy a page that is shared before writing into it",
                    )

    def _logit_rows(self, batch: Submit, begins: Array) -> list[int]:
        """Which of the N tokens give logits; `_offsets` says where each row's begin, `_ended` where its last one is."""
        wanted: list[int] = []
        self._offsets, self._ended, self._logits = [], {}, None
        for row, begin, end in zip(batch.rows, begins[:-1].tolist(), begins[1:].tolist(), strict=True):
            self._offsets.append(len(wanted))
            wanted += range(begin + first_wanted(row), end)
            self._ended[row.sequence] = len(wanted) - 1
        return wanted

    def _read(self) -> Array:
        """The logits [R, V] of the batch that ended last."""
        if self._logits is None:
            count = 1 + max(self._ended.values())
            self._logits = self._room(self._shape.result, count).read()
        return self._logits

    def _feed(self, port: int, values: Any) -> None:
        spec = self._executable.inputs[port]
        array = np.asarray(values, spec.dtype)
        buffer = self._room(port, array.shape[0]) if array.shape else self._scalar(port)
        buffer.write(array)
        self._executable.bind(port, buffer)

    def _scalar(self, port: int) -> Buffer:
        if port not in self._buffers:
            self._buffers[port] = self._executable.allocate(port, ())
        return self._buffers[port]

    def _room(self, port: int, count: int, rest: tuple[int, ...] = ()) -> Buffer:
        """The first `count` entries of the port's buffer, which doubles where it is too small."""
        held = self._buffers.get(port)
        if held is None or held.shape[0] < count:
            held = self._buffers[port] = self._executable.allocate(port, (1 << (count - 1).bit_length(), *rest))
        return held.rows(0, count)

    def _complete(self, batch: Submit) -> BatchDone:
        rows = batch.rows
        if all(row.sample is None and not row.targets for row in rows):
            results: tuple[RowResult, ...] = tuple(RowResult(sequence=row.sequence) for row in rows)
        else:
            logits = self._read()
            results = tuple(row_result(row, logits[at:]) for row, at in zip(rows, self._offsets, strict=True))
        prompt = sum(row.prompt for row in rows)
        self.prompt_tokens += prompt
        self.rows_run += len(rows)
        return BatchDone(batch=batch.batch, results=results, started=self._started, ended=monotonic(), prompt_tokens=prompt)


def _part(page: int, start: int, count: int) -> tuple[slice, ...]:
    return (slice(page, page + 1), slice(None), slice(start, start + count))


def _joined(parts: list[Array]) -> Array:
    """[heads, tokens, dim] pieces -> [tokens, heads, dim], contiguous."""
    return np.ascontiguousarray(np.concatenate(parts, axis=1).transpose(1, 0, 2))
