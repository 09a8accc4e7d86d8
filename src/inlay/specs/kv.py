"""The neutral KV format between devices: the records of a transfer, layout [layer][K|V][token][head][dim].

The order is RESERVE -> GRANT or REFUSE -> CHUNK* -> COMMIT -> ACK; ABORT ends it from either end. A chunk is the
KV of a token range over all layers the sender owns; its pages are the (layer, K or V) pieces, each with a crc32
taken when the page was sealed. COMMIT carries a keyed digest over the manifest and all crcs in order.
"""

from __future__ import annotations

import msgspec

from inlay.specs.device import TransferBinding
from inlay.specs.stage import KvLayer

KV_FORMAT_VERSION = 1
KV_LAYOUT = "layer,kv,token,head,dim"


class Reserve(msgspec.Struct, frozen=True, kw_only=True, tag="reserve"):
    """The manifest: what will travel and to whom it belongs."""

    version: int
    model_digest: str
    binding: TransferBinding
    layers: tuple[KvLayer, ...]
    dtype: str
    layout: str
    bytes_expected: int


class Grant(msgspec.Struct, frozen=True, kw_only=True, tag="grant"):
    """The destination keeps room for this transfer."""

    transfer: int
    nonce: bytes


class Refuse(msgspec.Struct, frozen=True, kw_only=True, tag="refuse"):
    """The destination was not told of this transfer. (A manifest that fails a check is answered by Acknowledge.)"""

    transfer: int
    cause: str
    message: str


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk"):
    """The header of one chunk; the payload of the frame holds the pages one after another."""

    transfer: int
    nonce: bytes
    number: int
    start: int
    tokens: int
    crcs: tuple[int, ...]


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


KvRecord = Reserve | Grant | Refuse | Chunk | Commit | Acknowledge | Abort
