"""The four precisions of a lowered piece, asked for explicitly and recorded as really used; the usual ones have names."""

from __future__ import annotations

import msgspec

DTYPES = ("float32", "bfloat16", "float16", "int8", "int32")


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data types by name: of the stored weights, of the arithmetic, of its sums, and of the KV cache."""

    weights: str = "float32"
    compute: str = "float32"
    accumulate: str = "float32"
    kv: str = "float32"


PRECISIONS: dict[str, Precision] = {
    "float32": Precision(),
    "bfloat16": Precision(compute="bfloat16"),
    "float16": Precision(compute="float16"),
    "int8": Precision(weights="int8", compute="int8", accumulate="int32"),
    "int8-weights": Precision(weights="int8"),
}
"""By name, KV in float32. `int8`: products of 8-bit weights and activations, the latter rounded as they come, a scale for each
row or group. `int8-weights`: 8-bit weights alone. Either way embeddings as looked up, norms and attention stay in float32."""


def precision_name(precision: Precision) -> str:
    """The name whose weights, arithmetic and sums these are, with the KV type where it is another than float32; else all
    four joined by "/"."""
    found = next((name for name, item in PRECISIONS.items() if msgspec.structs.replace(precision, kv=item.kv) == item), None)
    if found is None:
        return "/".join(getattr(precision, field) for field in Precision.__struct_fields__)
    return found if precision.kv == "float32" else f"{found}, kv {precision.kv}"
