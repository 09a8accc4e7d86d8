"""Quantities that cannot be mixed up, and how people write them ("16 GiB", "25 GB/s", "20 us").

Called by every room that reads a file or prints a figure. Inside the code a quantity is always in the
base unit named here; multiples exist only in text.
"""

from __future__ import annotations

import re
from typing import NewType

from inlay.errors import InputError

Bytes = NewType("Bytes", int)
"""A count of bytes."""
Seconds = NewType("Seconds", float)
"""A duration in seconds, never a wall-clock time."""
BytesPerSecond = NewType("BytesPerSecond", float)
"""A bandwidth in one direction."""

_SIZES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_QUANTITY = re.compile(r"^\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z/]*)\s*$")


def parse_bytes(value: object, *, name: str = "size") -> Bytes:
    """Bytes from 1024, "16 GiB" or "16 GB". Raises InputError when negative, unitless text or not a number."""
    return Bytes(int(_parse(value, _SIZES, name=name, example="16 GiB")))


def parse_bandwidth(value: object, *, name: str = "bandwidth") -> BytesPerSecond:
    """Bytes per second from a number or "25 GB/s"; must be above zero. Raises InputError."""
    text = value[:-2] if isinstance(value, str) and value.endswith("/s") else value
    rate = _parse(text, _SIZES, name=name, example="25 GB/s")
    if rate <= 0:
        raise InputError(f"{name} is {value!r}, expected a bandwidth above zero", hint="write for example 25 GB/s")
    return BytesPerSecond(rate)


def parse_seconds(value: object, *, name: str = "duration") -> Seconds:
    """Seconds from a number or "20 us", "3 ms". Raises InputError when negative or not a duration."""
    return Seconds(_parse(value, _TIMES, name=name, example="20 us"))


def format_bytes(value: float) -> str:
    """A short text such as "1.5 GiB"; exact below one KiB."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_seconds(value: float) -> str:
    """A short text such as "3.2 ms"."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if abs(value) < limit:
            return f"{value * factor:.1f} {unit}"
    return f"{value:.2f} s"


def _parse(value: object, factors: dict[str, int] | dict[str, float], *, name: str, example: str) -> float:
    hint = f"write for example {example}"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(f"{name} is {value!r}, expected a number with a unit", hint=hint)
    if isinstance(value, (int, float)):
        number, unit = float(value), ""
    else:
        match = _QUANTITY.match(value)
        if match is None or match.group(2) not in factors:
            raise InputError(f"{name} is {value!r}, expected a number with one of {sorted(filter(None, factors))}", hint=hint)
        number, unit = float(match.group(1)), match.group(2)
    if number < 0 or number != number or number == float("inf"):
        raise InputError(f"{name} is {value!r}, expected zero or more", hint=hint)
    return number * factors[unit]
