"""The make-believe chip: memory of its own that is reached by address. A real chip has its driver here."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import torch

from inlay.errors import OutOfMemoryError
from inlay_newchip.support import NAME

LINE = 64  # every range begins at a multiple of so many bytes


class Memory:
    """Bytes that the host reaches by `copy_in` and `copy_out` only. Ranges that were freed are given out again."""

    def __init__(self, size: int) -> None:
        self._bytes, self._end = np.zeros(size, np.uint8), 0
        self._free: dict[int, list[int]] = {}

    def take(self, size: int) -> Range:
        """A zeroed range, free again with its last reference. Raises OutOfMemoryError."""
        wanted = max(LINE, 1 << (size - 1).bit_length())
        if not self._free.get(wanted):
            if self._end + wanted > self._bytes.size:
                raise OutOfMemoryError(
                    f"{NAME} has {self._bytes.size} bytes, no {size} are free", hint="a larger option memory"
                )
            self._free.setdefault(wanted, []).append(self._end)
            self._end += wanted
        address = self._free[wanted].pop()
        self._bytes[address : address + wanted] = 0
        return Range(address, self._free[wanted])

    def copy_in(self, address: int, data: np.ndarray[Any, Any]) -> None:
        """From the host."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._bytes[address : address + flat.size] = flat

    def copy_out(self, address: int, size: int) -> np.ndarray[Any, Any]:
        """To the host, a fresh copy."""
        return self._bytes[address : address + size].copy()

    def operand(self, address: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """What the chip's own arithmetic sees. Not for the host."""
        return torch.frombuffer(self._bytes.data, dtype=dtype, count=math.prod(shape), offset=address).view(shape)


class Range:
    """An address, given back with its last reference."""

    def __init__(self, address: int, free: list[int]) -> None:
        self.address = address
        weakref.finalize(self, free.append, address)
