"""The Backend seam and one folder per framework, all with the same files, beside the teaching backends."""

from __future__ import annotations

from inlay.backends.buffer import HostBuffer
from inlay.backends.registry import backend, backend_names
from inlay.backends.seam import Array, Asynchronous, Backend, Buffer, Executable
from inlay.backends.weights import map_weights, tensor_digest

__all__ = [
    "Array",
    "Asynchronous",
    "Backend",
    "Buffer",
    "Executable",
    "HostBuffer",
    "backend",
    "backend_names",
    "map_weights",
    "tensor_digest",
]
