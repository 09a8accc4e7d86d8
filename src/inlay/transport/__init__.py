"""Moves frames between devices and processes: shared memory on one host, framed sockets elsewhere."""

from __future__ import annotations

from inlay.transport.channel import HEADER_LIMIT, PAYLOAD_LIMIT, Channel, Frame
from inlay.transport.door import CONTROL_FRAME, ENGINE_NAME, KV, STAGE, Arrival, Door
from inlay.transport.handshake import Peer, create_key, shake_hands, shake_hands_async
from inlay.transport.memory import SharedChannel, accept, offer
from inlay.transport.stream import StreamChannel, read_frame, write_frame
from inlay.transport.tensors import NamedArray, RunFailed, TensorAssembler, TensorSender

__all__ = [
    "CONTROL_FRAME",
    "ENGINE_NAME",
    "HEADER_LIMIT",
    "KV",
    "PAYLOAD_LIMIT",
    "STAGE",
    "Arrival",
    "Channel",
    "Door",
    "Frame",
    "NamedArray",
    "Peer",
    "RunFailed",
    "SharedChannel",
    "StreamChannel",
    "TensorAssembler",
    "TensorSender",
    "accept",
    "create_key",
    "offer",
    "read_frame",
    "shake_hands",
    "shake_hands_async",
    "write_frame",
]
