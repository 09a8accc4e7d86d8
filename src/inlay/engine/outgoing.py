"""One KV transfer at its source, and the manifest that announces it. Used by the sender alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from inlay.engine.conversion import conversion_name, wire_dtype
from inlay.engine.pages import Edge, Root, token_bytes
from inlay.specs.device import TransferBinding
from inlay.specs.kv import KV_FORMAT_VERSION, KV_LAYOUT, Chunk, Commit, KvRecord, Reserve
from inlay.specs.stage import KvLayer

Frame = tuple[KvRecord, list[Any]]


@dataclass(slots=True, eq=False)
class Outgoing:
    """One transfer at its source. `queue` holds sealed copies, so the slot may be rewritten at any time.

    `credits` chunks may be under way at once (0 = not granted yet); `sent` and `taken` count those sent and those that the
    destination has taken; `moved` is when it last got on: something was sealed, sent or answered.
    """

    manifest: Reserve
    root: Root
    own: range
    heads: list[tuple[slice, slice]]
    moved: float
    reserved: bool = False
    committed: bool = False
    credits: int = 0
    rows: int = 0
    chunks: int = 0
    bytes: int = 0
    sent: int = 0
    taken: int = 0
    queue: deque[Frame] = field(default_factory=deque)

    @property
    def binding(self) -> TransferBinding:
        """What ties it to its request."""
        return self.manifest.binding

    @property
    def waits(self) -> bool:
        """Whether it is the destination's turn: to grant, to take, or to acknowledge."""
        return self.credits == 0 or self.committed or bool(self.queue)

    @property
    def may_send(self) -> bool:
        """Whether the next frame of the queue has its credit."""
        if not self.queue or self.credits == 0:
            return False
        return not isinstance(self.queue[0][0], Chunk) or self.sent - self.taken < self.credits

    def commit(self) -> Commit:
        """The record that ends it."""
        return Commit(
            transfer=self.binding.transfer,
            nonce=self.binding.nonce,
            chunks=self.chunks,
            size=self.bytes,
            root=self.root.value(),
        )


def describe(
    binding: TransferBinding, *, layers: tuple[KvLayer, ...], edge: Edge, model_digest: str, generation: int
) -> Reserve:
    """The manifest of what travels. Raises TransferError(cause="lossy") for a wire dtype that is not allowed."""
    dtype = wire_dtype(edge.stored, edge.allowed.dtype, lossy=edge.allowed.lossy)
    return Reserve(
        version=KV_FORMAT_VERSION,
        model_digest=model_digest,
        binding=binding,
        layers=layers,
        stored=edge.stored,
        dtype=dtype,
        conversion=conversion_name(edge.stored, dtype),
        layout=KV_LAYOUT,
        rope=edge.rope,
        generation=generation,
        bytes_expected=(binding.tokens - binding.start) * token_bytes(layers, dtype=dtype),
    )
