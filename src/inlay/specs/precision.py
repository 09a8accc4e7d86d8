"""The four precisions of a lowered piece, asked for explicitly and recorded as really used."""

from __future__ import annotations

import msgspec

DTYPES = ("float32", "bfloat16", "float16", "int8")


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data types by name: of the stored weights, of the arithmetic, of its sums, and of the KV cache."""

    weights: str = "float32"
    compute: str = "float32"
    accumulate: str = "float32"
    kv: str = "float32"
