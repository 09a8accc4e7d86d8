"""The page store of one device process: rows of finished prompts and answers, copied out of slots and back into others.

It obeys: which page holds what is the scheduler's matter. It lies in host memory, whatever the device; pages that were never
written take none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inlay.engine.runner import Runner
from inlay.errors import DeviceError
from inlay.specs.device import Fill, Keep
from inlay.specs.stage import StageShape

Array = np.ndarray[Any, Any]


class PageStore:
    """`count` pages of `page` tokens, for the layers of one runner: per layer keys and values [pages, page, heads, dim]."""

    def __init__(self, runner: Runner, stage: StageShape, *, page: int, count: int) -> None:
        self._runner = runner
        self._page = page
        self._count = count
        shapes = [
            shape for item in stage.layers for shape in ((item.key_heads, item.key_dim), (item.value_heads, item.value_dim))
        ]
        self._shapes = [(count, page, *shape) for shape in shapes]
        self._arrays: list[Array] = []
        self._written: set[int] = set()

    def keep(self, message: Keep) -> None:
        """Copy rows of a slot into pages. Raises DeviceError for a page that there is not."""
        self._check(message.pages)
        rows = self._page * len(message.pages)
        exported = self._runner.export_kv(message.slot, message.start, rows)
        flat = [array for pair in exported for array in pair]
        if not self._arrays:
            self._arrays = [np.empty(shape, array.dtype) for shape, array in zip(self._shapes, flat, strict=True)]
        at = list(message.pages)
        for store, array in zip(self._arrays, flat, strict=True):
            store[at] = array.reshape(len(at), self._page, *array.shape[1:])
        self._written.update(at)

    def fill(self, message: Fill) -> None:
        """Copy pages into a slot. Raises DeviceError for a page that was never written."""
        self._check(message.pages)
        unknown = [page for page in message.pages if page not in self._written]
        if unknown:
            raise DeviceError(f"page {unknown[0]} is to be read and was never written")
        at = list(message.pages)
        rows = self._page * len(at)
        flat = [store[at].reshape(rows, *store.shape[2:]) for store in self._arrays]
        self._runner.import_kv(message.slot, 0, list(zip(flat[::2], flat[1::2], strict=True)))

    def memory(self) -> dict[str, int]:
        """Bytes of the pages that hold something, and of all when full (float32 where nothing was written yet)."""
        size = self._arrays[0].itemsize if self._arrays else 4
        whole = sum(size * int(np.prod(shape)) for shape in self._shapes)
        return {"kv_pages_used": whole // max(1, self._count) * len(self._written), "kv_pages": whole}

    def _check(self, pages: tuple[int, ...]) -> None:
        wrong = [page for page in pages if not 0 <= page < self._count]
        if wrong:
            raise DeviceError(f"page is {wrong[0]}, expected 0 to {self._count - 1}")
