"""KV pages between the runner's arrays and the neutral wire layout [layer][K|V][token][head][dim], with their seals."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from inlay.errors import TransferError
from inlay.specs.kv import Reserve
from inlay.specs.stage import KvLayer, StageShape

Array = np.ndarray[Any, Any]
PAYLOAD_TARGET = 2 * 1024 * 1024
"""Chunks larger than this are sent in several frames, so that a ring of a few MiB is enough."""


def seal(pages: Sequence[tuple[Array, Array]]) -> tuple[list[Array], tuple[int, ...]]:
    """The arrays in wire order and one crc32 each, taken from the copies that will be sent."""
    arrays = [array for pair in pages for array in pair]
    return arrays, tuple(zlib.crc32(array.data) for array in arrays)


def unseal(payload: memoryview, crcs: tuple[int, ...], layers: Sequence[KvLayer], tokens: int) -> list[tuple[Array, Array]]:
    """Arrays [token, head, dim] over the payload, every crc checked. Raises TransferError (size, checksum)."""
    expected = chunk_bytes(layers, tokens)
    if len(payload) != expected or len(crcs) != 2 * len(layers):
        raise TransferError(
            f"a chunk of {tokens} tokens has {len(payload)} bytes and {len(crcs)} pages, "
            f"expected {expected} bytes and {2 * len(layers)} pages",
            cause="size",
        )
    pages: list[tuple[Array, Array]] = []
    offset = 0
    for layer, item in enumerate(layers):
        pair = []
        for half, (heads, dim) in enumerate(((item.key_heads, item.key_dim), (item.value_heads, item.value_dim))):
            size = 4 * tokens * heads * dim
            part = payload[offset : offset + size]
            if zlib.crc32(part) != crcs[2 * layer + half]:
                raise TransferError(f"page {'KV'[half]} of layer {layer} does not match its checksum", cause="checksum")
            pair.append(np.frombuffer(part, dtype="<f4").reshape(tokens, heads, dim))
            offset += size
        pages.append((pair[0], pair[1]))
    return pages


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


def chunk_bytes(layers: Sequence[KvLayer], tokens: int) -> int:
    """Bytes of the KV of `tokens` tokens over these layers, float32."""
    return tokens * token_bytes(layers)


def token_bytes(layers: Sequence[KvLayer]) -> int:
    """Bytes that one token's KV takes on the wire, float32."""
    return 4 * StageShape(vocabulary=0, layers=tuple(layers)).kv_elements_per_token()


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
