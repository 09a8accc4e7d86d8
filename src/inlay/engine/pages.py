"""KV pages between the runner's arrays and the neutral wire layout [layer][K|V][token][head][dim], with their seals."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from inlay.engine.conversion import pack, page_bytes, reorder_keys, unpack
from inlay.engine.heads import WHOLE, Share, own_heads, shared_layer
from inlay.errors import TransferError
from inlay.specs.kv import KvRecord, KvTransfer, Reserve, Rope
from inlay.specs.stage import KvLayer, StageShape

Array = np.ndarray[Any, Any]
Pages = Sequence[tuple[Array, Array]]
PAYLOAD_TARGET = 2 * 1024 * 1024
"""Chunks larger than this are sent in several frames, so that a ring of a few MiB is enough."""
HEADER_LIMIT = 64 * 1024
_DECODER = msgspec.msgpack.Decoder(KvRecord)


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """How one process keeps KV: the dtype of its pool, how its keys are turned, the share of each layer's heads that it
    owns (of `whole` layers, where that is a part), and what the deployment allows."""

    stored: str = "float32"
    rope: Rope = Rope()
    allowed: KvTransfer = KvTransfer()
    share: Share = WHOLE
    whole: tuple[KvLayer, ...] = ()


def decode_record(header: bytes) -> KvRecord:
    """One record of a peer. Raises TransferError with cause "size" (before it is looked at) or "header"."""
    if len(header) > HEADER_LIMIT:
        raise TransferError(f"a KV record has {len(header)} bytes, expected at most {HEADER_LIMIT}", cause="size")
    try:
        record: KvRecord = _DECODER.decode(header)
        return record
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a broken text is told by the latter
        raise TransferError(f"a KV record cannot be read: {error}", cause="header") from error


def seal(pages: Pages, *, dtype: str = "float32", edge: Edge = Edge()) -> tuple[list[Array], tuple[int, ...]]:
    """The arrays in wire order and one crc32 for each page, taken from the copies that will be sent."""
    arrays: list[Array] = []
    crcs = []
    for pair in pages:
        for page in pair:
            parts = pack(page, dtype, stored=edge.stored, lossy=edge.allowed.lossy)
            crc = 0
            for part in parts:
                crc = zlib.crc32(part.data, crc)
            arrays += parts
            crcs.append(crc)
    return arrays, tuple(crcs)


def unseal(
    payload: memoryview, crcs: tuple[int, ...], layers: Sequence[KvLayer], tokens: int, *, dtype: str = "float32"
) -> list[tuple[Array, Array]]:
    """float32 arrays [token, head, dim] to be read, in memory of their own, every crc checked.

    Raises TransferError with cause "size" or "checksum".
    """
    expected = chunk_bytes(layers, tokens, dtype=dtype)
    if len(payload) != expected or len(crcs) != 2 * len(layers):
        raise TransferError(
            f"a chunk of {tokens} tokens has {len(payload)} bytes and {len(crcs)} pages, "
            f"expected {expected} bytes and {2 * len(layers)} pages",
            cause="size",
        )
    # A payload in shared memory can still change: the checksum is of the bytes that are kept, not of those that came.
    kept = np.frombuffer(bytes(payload), np.uint8)
    pages: list[Array] = []
    offset = 0
    for index, (heads, dim) in enumerate(_geometry(layers)):
        size = page_bytes(dtype, tokens=tokens, heads=heads, dim=dim)
        part = kept[offset : offset + size]
        if zlib.crc32(part.data) != crcs[index]:
            raise TransferError(f"page {'KV'[index % 2]} of layer {index // 2} does not match its checksum", cause="checksum")
        pages.append(unpack(part, dtype, tokens=tokens, heads=heads, dim=dim))
        offset += size
    return list(zip(pages[::2], pages[1::2], strict=True))


def common_layers(stage: StageShape, layers: tuple[int, int] | None) -> range:
    """The layers of a transfer as numbers among a piece's own; all of its own where the binding names none.

    Raises TransferError(cause="layers") for a layer that it does not own.
    """
    if layers is None:
        return range(len(stage.layers))
    first, end = layers[0] - stage.first, layers[1] - stage.first
    if not 0 <= first < end <= len(stage.layers):
        raise TransferError(
            f"a transfer of layers {list(layers)}, expected layers within {[stage.first, stage.first + len(stage.layers)]}",
            cause="layers",
        )
    return range(first, end)


def travelling(stage: StageShape, own: range, share: Share | None, edge: Edge) -> tuple[KvLayer, ...]:
    """The geometry of what travels of these layers: their share of the heads, or all that the process has."""
    if share is None:
        return stage.layers[own.start : own.stop]
    whole = edge.whole or stage.layers
    return tuple(shared_layer(layer, share) for layer in whole[own.start : own.stop])


def head_slices(stage: StageShape, own: range, share: Share | None, edge: Edge) -> list[tuple[slice, slice]]:
    """For each of these layers where the heads that travel lie among the process's own, for keys and for values.

    Raises TransferError(cause="heads") for a head that it does not own.
    """
    every = slice(None)
    if share is None:
        return [(every, every)] * len(own)
    whole = (edge.whole or stage.layers)[own.start : own.stop]
    return [(own_heads(share, edge.share, layer.key_heads), own_heads(share, edge.share, layer.value_heads)) for layer in whole]


def cut_heads(pages: Pages, slices: Sequence[tuple[slice, slice]]) -> list[tuple[Array, Array]]:
    """The heads that travel, of a process's own pages [token, head, dim]."""
    return [(keys[:, cut], values[:, of]) for (keys, values), (cut, of) in zip(pages, slices, strict=True)]


def reordered(pages: Pages, rope: Rope) -> list[tuple[Array, Array]]:
    """Pages of the other convention with their keys in the order of this one."""
    return [(reorder_keys(keys, into=rope.convention, dims=rope.dims), values) for keys, values in pages]


def chunk_bytes(layers: Sequence[KvLayer], tokens: int, *, dtype: str = "float32") -> int:
    """Bytes of the KV of `tokens` tokens over these layers in one chunk."""
    return sum(page_bytes(dtype, tokens=tokens, heads=heads, dim=dim) for heads, dim in _geometry(layers))


def token_bytes(layers: Sequence[KvLayer], *, dtype: str = "float32") -> int:
    """Bytes that one token's KV takes on the wire, scales left out."""
    return chunk_bytes(layers, 1, dtype=dtype) - chunk_bytes(layers, 0, dtype=dtype)


def chunk_ranges(start: int, end: int, layers: Sequence[KvLayer], *, dtype: str) -> Iterator[tuple[int, int]]:
    """First row and number of rows of the frames that rows `start` to `end` travel in."""
    step = max(1, PAYLOAD_TARGET // token_bytes(layers, dtype=dtype))
    for first in range(start, end, step):
        yield first, min(step, end - first)


def _geometry(layers: Sequence[KvLayer]) -> Iterator[tuple[int, int]]:
    """Heads and dim of each page, in wire order."""
    for item in layers:
        yield item.key_heads, item.key_dim
        yield item.value_heads, item.value_dim


class Root:
    """The keyed digest that ends a transfer: over the manifest and all page checksums in order."""

    def __init__(self, manifest: Reserve, key: bytes) -> None:
        self._digest = hashlib.blake2b(msgspec.msgpack.encode(manifest), key=key, digest_size=32)

    def add(self, start: int, tokens: int, crcs: tuple[int, ...]) -> None:
        """Take in one chunk's range and checksums."""
        self._digest.update(msgspec.msgpack.encode((start, tokens, crcs)))

    def value(self) -> bytes:
        """32 bytes."""
        return self._digest.digest()
