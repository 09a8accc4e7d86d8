"""Checks that buffers and sizes fit the ports of an executable. Shared by the backends; it runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inlay.backends.seam import Buffer
from inlay.errors import DeviceError, UnsupportedError
from inlay.graph import size_value
from inlay.specs.stage import Port


def check_shape(port: Port, shape: Sequence[int]) -> None:
    """Raise DeviceError where a buffer of this shape can never be bound to the port."""
    fits = len(port.shape) == len(shape) and all(
        wanted == size or (isinstance(wanted, str) and size > 0) for wanted, size in zip(port.shape, shape, strict=False)
    )
    if not fits:
        raise DeviceError(f"port {port.name!r} has shape {list(port.shape)}, got a buffer of shape {list(shape)}")


def check_buffer(port: Port, buffer: Buffer) -> None:
    """Raise DeviceError where dtype or fixed sizes of the buffer differ from the port's."""
    check_shape(port, buffer.shape)
    if buffer.dtype != port.dtype:
        raise DeviceError(f"port {port.name!r} has dtype {port.dtype}, got a buffer of {buffer.dtype}")


def check_sizes(ports: Sequence[Port], bound: Sequence[Buffer | None], sizes: Mapping[str, int]) -> None:
    """Raise DeviceError for a port without a buffer, or with one whose shape does not follow from the sizes."""
    for port, buffer in zip(ports, bound, strict=True):
        if buffer is None:
            raise DeviceError(f"port {port.name!r} has no buffer", hint="bind every port before the first run")
        for wanted, size in zip(port.shape, buffer.shape, strict=True):
            if isinstance(wanted, str) and size_value(wanted, sizes) != size:
                raise DeviceError(
                    f"port {port.name!r} {list(port.shape)} is bound to a buffer of shape {list(buffer.shape)}, "
                    f"but the run is of {wanted} = {size_value(wanted, sizes)}"
                )


def check_dynamic(sizes: Mapping[str, int], ranges: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Raise UnsupportedError for a size below 1, which no captured program has, or outside its declared range."""
    for symbol, size in sizes.items():
        low, high = (ranges or {}).get(symbol, (1, size))
        if size < 1 or not low <= size <= high:
            expected = f"{low} to {high}" if ranges and symbol in ranges else "at least 1"
            raise UnsupportedError(f"size {symbol} = {size}, expected {expected}")
