"""The neutral KV format between devices: the records of a transfer, layout [layer][K|V][token][head][dim].

The order is RESERVE -> GRANT or REFUSE -> CHUNK* -> COMMIT -> ACK; TAKEN gives credits back, RENEW keeps a lease, ABORT
ends it from either end. A chunk is the KV of a token range over all layers the sender owns; its pages are the (layer, K
or V) pieces, each with a crc32 taken when the page was sealed. COMMIT carries a keyed digest over the manifest and all
crcs in order.
"""

from __future__ import annotations

import msgspec

from inlay.specs.device import TransferBinding
from inlay.specs.stage import KvLayer

KV_FORMAT_VERSION = 2
KV_LAYOUT = "layer,kv,token,head,dim"
PAGE = 16
"""Tokens of one page of a kept prefix, and of a page in the name of what a hand-off carries."""
KV_DTYPES = ("float32", "bfloat16", "float16", "int8")
"""What travels. int8 is followed, page by page, by one float32 scale for each head."""
QUARANTINED = "quarantined"
"""Why a transfer failed: its destination takes nothing of that source any more."""
STORED = "stored"
"""The dtype of the pool that a page comes from."""


class KvTransfer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment allows of its hand-offs: whether KV may lose precision on its way, and the dtype on the wire.

    A `dtype` other than "stored" that changes values needs `lossy`.
    """

    lossy: bool = False
    dtype: str = STORED


class Rope(msgspec.Struct, frozen=True, kw_only=True):
    """How keys are turned by their position.

    `convention` says which numbers of a head make a pair: "half" (i and i + d/2), "interleaved" (2i and 2i + 1), or ""
    where it is not known; `dims` how many of them turn (0 = all). `theta` and `scaling` are the model's own words.
    `applied` says that the keys of the pool are turned already.
    """

    convention: str = ""
    dims: int = 0
    theta: float | None = None
    scaling: str = ""
    applied: bool = True


class Reserve(msgspec.Struct, frozen=True, kw_only=True, tag="reserve"):
    """The manifest: what will travel and to whom it belongs.

    `layers` is the geometry of what travels: a part of the heads where the binding names one. `stored` is the dtype of
    the source's pool, `dtype` that of the wire, `conversion` what the source does between the two ("" = nothing).
    `generation` counts how often the source's slot had changed hands when the transfer was opened.
    """

    version: int
    model_digest: str
    binding: TransferBinding
    layers: tuple[KvLayer, ...]
    stored: str
    dtype: str
    conversion: str
    layout: str
    rope: Rope
    generation: int
    bytes_expected: int


class Grant(msgspec.Struct, frozen=True, kw_only=True, tag="grant"):
    """The destination keeps room for this transfer as long as it hears of it every `lease` seconds.

    At most `credits` chunks may be on their way; `conversion` is what the destination does with what comes.
    """

    transfer: int
    nonce: bytes
    lease: float
    credits: int
    conversion: str = ""


class Refuse(msgspec.Struct, frozen=True, kw_only=True, tag="refuse"):
    """The destination was not told of this transfer. (A manifest that fails a check is answered by Acknowledge.)"""

    transfer: int
    nonce: bytes
    cause: str
    message: str


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk"):
    """The header of one chunk; the payload of the frame holds the pages one after another."""

    transfer: int
    nonce: bytes
    number: int
    start: int
    tokens: int
    generation: int
    crcs: tuple[int, ...]


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """The destination has taken this many chunks so far, which frees as many credits."""

    transfer: int
    nonce: bytes
    chunks: int


class Renew(msgspec.Struct, frozen=True, kw_only=True, tag="renew"):
    """The source lives and still means this transfer, which it has not committed yet."""

    transfer: int
    nonce: bytes


class Commit(msgspec.Struct, frozen=True, kw_only=True, tag="commit"):
    """The end of a transfer: how much was sent and the keyed digest of it."""

    transfer: int
    nonce: bytes
    chunks: int
    size: int
    root: bytes


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True, tag="acknowledge"):
    """The destination has committed (`cause` empty) or rejected the transfer."""

    transfer: int
    nonce: bytes
    cause: str = ""
    message: str = ""


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag="kv_abort"):
    """The sender gives the transfer up."""

    transfer: int
    nonce: bytes
    reason: str


KvRecord = Reserve | Grant | Refuse | Chunk | Taken | Renew | Commit | Acknowledge | Abort
