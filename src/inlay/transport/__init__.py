"""Moves frames between devices and processes: shared memory on one host, framed sockets elsewhere."""

from __future__ import annotations

from inlay.transport.channel import HEADER_LIMIT, Channel, Frame
from inlay.transport.door import CONTROL_FRAME, ENGINE_NAME, KV, STAGE, Arrival, Door
from inlay.transport.handshake import create_key, shake_hands, shake_hands_async
from inlay.transport.locked import LockedChannel
from inlay.transport.memory import SharedChannel, accept, offer
from inlay.transport.stream import FrameWriter, StreamChannel, read_frame, write_frame
from inlay.transport.tensors import NamedArray, RunFailed, TensorAssembler, TensorSender
from inlay.transport.tls import Tls

__all__ = [
    "CONTROL_FRAME",
    "ENGINE_NAME",
    "HEADER_LIMIT",
    "KV",
    "STAGE",
    "Arrival",
    "Channel",
    "Door",
    "Frame",
    "FrameWriter",
    "LockedChannel",
    "NamedArray",
    "RunFailed",
    "SharedChannel",
    "StreamChannel",
    "TensorAssembler",
    "TensorSender",
    "Tls",
    "accept",
    "create_key",
    "offer",
    "read_frame",
    "shake_hands",
    "shake_hands_async",
    "write_frame",
]
