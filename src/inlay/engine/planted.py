"""Planted faults: what the tests of the hand-off must catch. Inactive unless a device process is configured with one.

Three kinds. Faults of the pages act after the checks of the transfer, on bytes that are already believed, so they show
what the comparison of tokens can see when the protocol cannot. Faults of the wire act between the seal and the channel:
every one must be caught by a check. Faults of the process end or freeze it at a moment of a transfer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from inlay.errors import InputError
from inlay.specs.kv import Chunk, Commit, KvRecord, Reserve

Array = np.ndarray[Any, Any]
Pages = Sequence[tuple[Array, Array]]
Frame = tuple[KvRecord, list[Any]]
OF_PAGES = ("position", "last_row", "first_rows", "other_pages")
OF_WIRE = (
    "flip",
    "drop",
    "double",
    "swap",
    "replay",
    "truncate",
    "cut",
    "stale_epoch",
    "other_request",
    "wrong_nonce",
    "other_version",
)
MOMENTS = ("reserve", "chunk", "commit", "grant", "acknowledge")
"""The first three at a source: the manifest is about to be sent, a chunk was, the commit was. The others at a destination."""
OF_PROCESS = tuple(f"{what}_{moment}" for what in ("kill", "stop") for moment in MOMENTS)
FAULTS = ("none", *OF_PAGES, *OF_WIRE, *OF_PROCESS)
ZEROED_ROWS = 16


class Plant:
    """One fault by name.

    Of the pages: "position" (decode rows one position late), "last_row" (the last imported row disturbed), "first_rows"
    (the first 16 rows zeroed), "other_pages" (the pages of the transfer before this one). Of the wire: a bit of the second
    chunk flipped, that chunk dropped, doubled, swapped with the next one or replaced by the first one's bytes; the last
    chunk left out, or its bytes cut; a manifest with another epoch, request, nonce or version. Of the process: "kill" or
    "stop" (SIGKILL, SIGSTOP) at one of MOMENTS.
    """

    def __init__(self, fault: str = "none") -> None:
        if fault not in FAULTS:
            raise InputError(f"planted fault is {fault!r}, expected one of {', '.join(FAULTS)}")
        self._fault = fault
        self._kept: dict[int, Frame] = {}
        self._current: tuple[int, list[tuple[Array, Array]]] | None = None
        self._previous: list[tuple[Array, Array]] | None = None

    def past_length(self, length: int) -> int:
        """The number of valid rows that a decode row is told."""
        return length - 1 if self._fault == "position" and length > 1 else length

    def moment(self, name: str) -> None:
        """Something of a transfer has just happened, or is about to."""
        for what, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
            if self._fault == f"{what}_{name}":
                self._fault = "none"  # a process that is continued goes on as if nothing had been
                os.kill(os.getpid(), number)

    def manifest(self, manifest: Reserve) -> Reserve:
        """The manifest that is sent."""
        binding = manifest.binding
        changes: dict[str, dict[str, Any]] = {
            "stale_epoch": {"binding": msgspec.structs.replace(binding, destination_epoch=binding.destination_epoch - 1)},
            "other_request": {"binding": msgspec.structs.replace(binding, request=binding.request + "x")},
            "wrong_nonce": {"binding": msgspec.structs.replace(binding, nonce=bytes(reversed(binding.nonce)))},
            "other_version": {"version": manifest.version - 1},
        }
        return msgspec.structs.replace(manifest, **changes.get(self._fault, {}))

    def outgoing(self, record: KvRecord, payload: list[Any]) -> list[Frame]:
        """The frames that are sent in place of a sealed chunk or a commit."""
        if self._fault in OF_WIRE and isinstance(record, Chunk):
            return self._chunk(record, payload)
        if self._fault == "truncate" and isinstance(record, Commit) and (kept := self._kept.pop(record.transfer, None)):
            size = sum(memoryview(part).nbytes for part in kept[1])
            return [(msgspec.structs.replace(record, chunks=record.chunks - 1, size=record.size - size), payload)]
        return [(record, payload)]

    def _chunk(self, record: Chunk, payload: list[Any]) -> list[Frame]:
        """Faults that act on the second chunk of a transfer or, with the first one kept, on the last one sealed so far."""
        frame: Frame = (record, payload)
        if self._fault == "truncate":  # always one behind: the commit drops the one that is kept
            before = self._kept.get(record.transfer)
            self._kept[record.transfer] = frame
            return [] if before is None else [before]
        if record.number == 0:
            self._kept[record.transfer] = frame
        if record.number != 1:
            held = self._kept.pop(-record.transfer - 1, None) if record.number == 2 else None
            return [frame] if held is None else [frame, held]
        match self._fault:
            case "flip":
                return [(record, _flipped(payload))]
            case "drop":
                return []
            case "double":
                return [frame, frame]
            case "swap":
                self._kept[-record.transfer - 1] = frame
                return []
            case "replay":
                return [(record, self._kept[record.transfer][1])]
            case "cut":
                return [(record, payload[:-1])]
            case _:
                return [frame]

    def imported(self, pages: Pages, *, transfer: int, start: int, total: int) -> Pages:
        """The pages that are written in place of the verified ones; rows start .. of a prompt of `total` rows."""
        if self._fault == "last_row":
            return [(_disturbed(keys, total - 1 - start), values) for keys, values in pages]
        if self._fault == "first_rows":
            return [(_zeroed(keys, start), _zeroed(values, start)) for keys, values in pages]
        if self._fault == "other_pages":
            return self._swapped(pages, transfer, start)
        return pages

    def _swapped(self, pages: Pages, transfer: int, start: int) -> Pages:
        mine = [(keys.copy(), values.copy()) for keys, values in pages]
        if self._current is None or self._current[0] != transfer:
            self._previous = None if self._current is None else self._current[1]
            self._current = (transfer, mine)
        else:
            joined = zip(self._current[1], mine, strict=True)
            self._current = (
                transfer,
                [(np.concatenate([a, c]), np.concatenate([b, d])) for (a, b), (c, d) in joined],
            )
        if self._previous is None:
            return pages
        count = pages[0][0].shape[0]
        return [
            (_over(keys, old_k, start, count), _over(values, old_v, start, count))
            for (keys, values), (old_k, old_v) in zip(pages, self._previous, strict=True)
        ]


def _flipped(payload: list[Any]) -> list[Any]:
    changed = np.frombuffer(memoryview(payload[0]).cast("B"), np.uint8).copy()
    changed[len(changed) // 2] ^= 0x10
    return [changed, *payload[1:]]


def _disturbed(keys: Array, row: int) -> Array:
    if not 0 <= row < keys.shape[0]:
        return keys
    changed = keys.copy()
    changed[row] = -changed[row]
    return changed


def _zeroed(page: Array, start: int) -> Array:
    changed = page.copy()
    changed[: max(0, ZEROED_ROWS - start)] = 0
    return changed


def _over(page: Array, other: Array, start: int, count: int) -> Array:
    """`page` with as many of its rows as the other prompt has replaced by those."""
    changed = page.copy()
    rows = other[start : start + count]
    changed[: rows.shape[0]] = rows
    return changed
