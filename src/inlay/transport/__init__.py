"""Moves frames between devices and processes: shared memory on one host, framed sockets elsewhere."""

from __future__ import annotations

from inlay.transport.channel import HEADER_LIMIT, PAYLOAD_LIMIT, Channel, Frame
from inlay.transport.handshake import KEY_BYTES, Peer, create_key, shake_hands, shake_hands_async
from inlay.transport.memory import RING_SIZE, SharedChannel, accept, offer
from inlay.transport.stream import StreamChannel, read_frame, write_frame

__all__ = [
    "HEADER_LIMIT",
    "KEY_BYTES",
    "PAYLOAD_LIMIT",
    "RING_SIZE",
    "Channel",
    "Frame",
    "Peer",
    "SharedChannel",
    "StreamChannel",
    "accept",
    "create_key",
    "offer",
    "read_frame",
    "shake_hands",
    "shake_hands_async",
    "write_frame",
]
