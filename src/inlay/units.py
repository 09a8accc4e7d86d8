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
OperationsPerSecond = NewType("OperationsPerSecond", float)
"""A rate of arithmetic; a multiplication and an addition are two."""
Watts = NewType("Watts", float)
"""A power."""
Dollars = NewType("Dollars", float)
"""US dollars, once or an hour as its owner says."""

_SIZES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_RATES: dict[str, float] = {**_SIZES, "Mb": 1e6 / 8, "Gb": 1e9 / 8, "Tb": 1e12 / 8}
_OPERATIONS = {"": 1.0, "GFLOPS": 1e9, "TFLOPS": 1e12, "PFLOPS": 1e15, "GOPS": 1e9, "TOPS": 1e12, "POPS": 1e15}
_POWERS = {"": 1.0, "W": 1.0, "kW": 1e3}
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_QUANTITY = re.compile(r"^\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z/]*)\s*$")


def parse_bytes(value: object, *, name: str = "size") -> Bytes:
    """Bytes from 1024, "16 GiB" or "16 GB". Raises InputError when negative, unitless text or not a number."""
    return Bytes(int(_parse(value, _SIZES, name=name, example="16 GiB")))


def parse_bandwidth(value: object, *, name: str = "bandwidth") -> BytesPerSecond:
    """Bytes per second from a number, "25 GB/s" or "400 Gb/s" (bits); must be above zero. Raises InputError."""
    text = value[:-2] if isinstance(value, str) and value.endswith("/s") else value
    rate = _parse(text, _RATES, name=name, example="25 GB/s")
    if rate <= 0:
        raise InputError(f"{name} is {value!r}, expected a bandwidth above zero", hint="write for example 25 GB/s")
    return BytesPerSecond(rate)


def parse_seconds(value: object, *, name: str = "duration") -> Seconds:
    """Seconds from a number or "20 us", "3 ms". Raises InputError when negative or not a duration."""
    return Seconds(_parse(value, _TIMES, name=name, example="20 us"))


def parse_operations(value: object, *, name: str = "rate") -> OperationsPerSecond:
    """Operations per second from a number, "989 TFLOPS" or "624 TOPS". Raises InputError when negative or no rate."""
    return OperationsPerSecond(_parse(value, _OPERATIONS, name=name, example="989 TFLOPS"))


def parse_power(value: object, *, name: str = "power") -> Watts:
    """Watts from a number, "700 W" or "1.37 kW". Raises InputError when negative or not a power."""
    return Watts(_parse(value, _POWERS, name=name, example="700 W"))


def parse_money(value: object, *, name: str = "price") -> Dollars:
    """Dollars from a number. Raises InputError when negative or not a number."""
    return Dollars(_parse(value, {"": 1.0, "USD": 1.0}, name=name, example="2.50"))


def format_bytes(value: float) -> str:
    """A short text such as "1.5 GiB"; exact below one KiB."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_operations(value: float) -> str:
    """A short text such as "989 T" (10^12 operations a second) or "15.6 P"."""
    return f"{value / 1e15:.4g} P" if value >= 1e16 else f"{value / 1e12:.4g} T"


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
