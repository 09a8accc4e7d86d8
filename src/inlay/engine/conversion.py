"""Between the numbers of a pool and those on the wire: dtypes, and which numbers of a head turn together. Pure functions.

Runners give and take float32; what their pool really stores says which conversions change nothing. One that could change
a value needs the deployment's word (`lossy`); one that overflows is refused always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from inlay.errors import TransferError
from inlay.specs.kv import KV_DTYPES, STORED, Rope

Array = np.ndarray[Any, Any]
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
SCALE_BYTES = 4
_NUMPY = {"float32": np.dtype("<f4"), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype("<f2")}
_HOLDS = {"float32": ("float32", "bfloat16", "float16"), "bfloat16": ("bfloat16",), "float16": ("float16",)}
"""What each dtype holds without a change."""
_COUNTED = {("bfloat16", "float16")}
"""Most values survive these: they are tried, and what changes is counted."""


def wire_dtype(stored: str, wanted: str, *, lossy: bool) -> str:
    """What a pool of `stored` sends where `wanted` is asked for ("stored" = as it is). Raises TransferError(cause="lossy")."""
    dtype = stored if wanted == STORED else wanted
    if dtype not in KV_DTYPES or stored not in _NUMPY:
        raise TransferError(f"KV of {stored} as {dtype} on the wire, expected one of {', '.join(KV_DTYPES)}", cause="dtype")
    _allow(stored, dtype, lossy=lossy)
    return dtype


def conversion_name(source: str, destination: str) -> str:
    """How a conversion is told, "" for none."""
    return "" if source == destination else f"{source}>{destination}"


def check_readable(dtype: str, stored: str, *, lossy: bool) -> str:
    """The conversion of what comes as `dtype` into a pool of `stored`. Raises TransferError(cause "dtype" or "lossy")."""
    if dtype not in KV_DTYPES or stored not in _NUMPY:
        raise TransferError(
            f"KV comes as {dtype} for a pool of {stored}, expected one of {', '.join(KV_DTYPES)}", cause="dtype"
        )
    _allow(dtype, stored, lossy=lossy)
    return conversion_name(dtype, stored)


def _allow(source: str, destination: str, *, lossy: bool) -> None:
    exact = source != "int8" and destination != "int8" and source in _HOLDS[destination]
    if not (exact or lossy or (source, destination) in _COUNTED):
        raise TransferError(
            f"KV of {source} into {destination} loses precision, which this deployment does not allow",
            cause="lossy",
            hint="set `kv_transfer: {lossy: true}` in the deployment, or give both places one KV precision",
        )


def pack(page: Array, dtype: str, *, stored: str, lossy: bool) -> list[Array]:
    """A float32 page [token, head, dim] as contiguous arrays of wire bytes: one, for int8 also the scales [head].

    Raises TransferError: "lossy" where a value changes that may not, "overflow" where one does not fit.
    """
    if dtype == "float32":
        return [np.ascontiguousarray(page, "<f4")]
    if dtype == "int8":
        return list(_quantise(page))
    if dtype == "bfloat16" and stored == "bfloat16":
        bits = np.ascontiguousarray(page, "<f4").view("<u4")
        if (bits & 0xFFFF).any():
            raise TransferError("a pool of bfloat16 gave values that are none", cause="lossy")
        return [(bits >> 16).astype("<u2")]
    narrow, changed = narrowed(page, dtype)
    if changed and not lossy:
        raise TransferError(f"{changed} values of a page change as {dtype}, expected none", cause="lossy")
    return [narrow.view("<u2")]


def unpack(part: Array, dtype: str, *, tokens: int, heads: int, dim: int) -> Array:
    """The float32 page [tokens, heads, dim] of its wire bytes (uint8, of `page_bytes`); for float32 a view of them."""
    shape = (tokens, heads, dim)
    if dtype == "float32":
        return part.view("<f4").reshape(shape)
    if dtype == "bfloat16":
        return (part.view("<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if dtype == "float16":
        return part.view("<f2").astype("<f4").reshape(shape)
    cut = tokens * heads * dim
    scales = part[cut:].copy().view("<f4")
    result: Array = part[:cut].view(np.int8).reshape(shape).astype("<f4") * scales[None, :, None]
    return result


def page_bytes(dtype: str, *, tokens: int, heads: int, dim: int) -> int:
    """Bytes of one page on the wire, scales included."""
    return SIZES[dtype] * tokens * heads * dim + (SCALE_BYTES * heads if dtype == "int8" else 0)


def fit(page: Array, dtype: str, stored: str, *, lossy: bool) -> tuple[Array, int]:
    """What a pool of `stored` will hold of a page that came as `dtype`, as float32, and how many values that changes.

    Raises TransferError: "lossy" for a changed value that may not, "overflow" for one that does not fit.
    """
    if stored == "float32" or dtype == stored:
        return page, 0
    narrow, changed = narrowed(page, stored)
    if changed and not lossy:
        raise TransferError(f"{changed} values of a page of {dtype} are not exact in {stored}, expected none", cause="lossy")
    return narrow.astype("<f4"), changed


def narrowed(page: Array, dtype: str) -> tuple[Array, int]:
    """A float32 page in a narrower dtype, and how many values that changes. Raises TransferError(cause="overflow")."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.ascontiguousarray(page, "<f4").astype(_NUMPY[dtype])
        back = narrow.astype("<f4")
    lost = int(np.count_nonzero(np.isfinite(page) & ~np.isfinite(back)))
    if lost:
        raise TransferError(
            f"{lost} values of a page do not fit {dtype}, the largest is {np.abs(page).max():g}", cause="overflow"
        )
    same = (back == page) | (np.isnan(back) & np.isnan(page))
    return narrow, int(np.count_nonzero(~same))


def _quantise(page: Array) -> tuple[Array, Array]:
    """int8 values and one float32 scale a head: the largest number of a head in this page is 127."""
    largest = np.abs(page).max(axis=(0, 2))
    if not np.isfinite(largest).all():
        raise TransferError("a page holds numbers that are not finite, which int8 cannot say", cause="overflow")
    scales = (largest / 127.0).astype("<f4")
    steps = np.where(scales > 0, scales, 1)[None, :, None]
    values = np.clip(np.rint(page / steps), -127, 127).astype(np.int8)
    return np.ascontiguousarray(values), scales


def check_rope(theirs: Rope, ours: Rope) -> bool:
    """Whether keys must be put in another order on their way in. Raises TransferError(cause="rope") where none will do."""
    plain = (theirs.dims, theirs.theta, theirs.scaling, theirs.applied)
    if plain != (ours.dims, ours.theta, ours.scaling, ours.applied):
        raise TransferError(f"keys are turned as {theirs!r}, expected {ours!r}", cause="rope")
    if theirs.convention == ours.convention:
        return False
    if not theirs.convention or not ours.convention:
        raise TransferError(
            f"keys pair their numbers as {theirs.convention or 'unknown'}, expected {ours.convention or 'unknown'}",
            cause="rope",
        )
    return True


def reorder_keys(keys: Array, *, into: str, dims: int = 0) -> Array:
    """Keys [token, head, dim] of the other convention in the order of `into` ("half" or "interleaved"); exact."""
    count = dims or keys.shape[-1]
    return keys[..., pair_order(count, into=into, whole=keys.shape[-1])]


def pair_order(dims: int, *, into: str, whole: int) -> Sequence[int]:
    """For each number of a head in the order wanted, where it stands in the other convention."""
    half = dims // 2
    if into == "half":
        turned = [*range(0, dims, 2), *range(1, dims, 2)]
    else:
        turned = [place for index in range(half) for place in (index, index + half)]
    return [*turned, *range(dims, whole)]
