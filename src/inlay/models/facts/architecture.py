"""What a language model is made of, as far as arithmetic and bytes care: attention, feed-forward, embedding. No weights."""

from __future__ import annotations

import msgspec


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """Softmax attention over heads that share KV; `window` bounds how far back it sees (None = everything). `gated` has a
    second query projection that scales the output."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    gated: bool = False


class LatentAttention(msgspec.Struct, frozen=True, kw_only=True):
    """Multi-head latent attention (MLA): one compressed row of `kv_rank + rope_dim` numbers a token, for all heads.

    `query_rank` is 0 where queries are not compressed.
    """

    heads: int
    query_rank: int
    kv_rank: int
    rope_dim: int
    plain_dim: int
    value_dim: int


class LinearAttention(msgspec.Struct, frozen=True, kw_only=True):
    """Gated linear attention (delta rule): a state of fixed size a sequence, and a short convolution before it."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int


class FeedForward(msgspec.Struct, frozen=True, kw_only=True):
    """A dense block; `gated` has three matrices, otherwise two."""

    width: int
    gated: bool = True


class Experts(msgspec.Struct, frozen=True, kw_only=True):
    """A mixture: `chosen` of `count` experts of `width` for each token, and a shared part of `shared_width` for all."""

    count: int
    chosen: int
    width: int
    shared_width: int = 0
    gated: bool = True


AnyAttention = Attention | LatentAttention | LinearAttention
AnyFeedForward = FeedForward | Experts


class LayerGroup(msgspec.Struct, frozen=True, kw_only=True):
    """`count` equal layers, wherever they stand."""

    count: int
    attention: AnyAttention
    feed_forward: AnyFeedForward


class Formats(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a stored parameter by what it belongs to, scales included, and bytes of a number of KV."""

    attention: float
    feed_forward: float
    experts: float
    head: float
    kv: float


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The geometry of one model. `native` are the formats of its published checkpoint; `source` says where the facts are from;
    `draft_layers` are extra layers for speculation in the checkpoint (multi-token prediction), not counted elsewhere."""

    name: str
    hidden: int
    vocabulary: int
    tied: bool
    groups: tuple[LayerGroup, ...]
    native: Formats
    source: str
    draft_layers: int = 0

    @property
    def layers(self) -> int:
        """How many there are, draft layers left out."""
        return sum(group.count for group in self.groups)

    @property
    def is_mixture(self) -> bool:
        """Whether any layer has experts."""
        return any(isinstance(group.feed_forward, Experts) for group in self.groups)
