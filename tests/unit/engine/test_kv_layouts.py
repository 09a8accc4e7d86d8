"""KV between pools that keep it in unlike ways: rows of tokens, blocks of 16 tokens turned around, float32 and bfloat16."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.backends import HostBuffer
from inlay.backends.arena import ContraryBuffer, device_memory
from inlay.engine.pages import Edge, seal, unseal
from inlay.engine.runner import ExtendRunner
from inlay.specs.device import SlotAddress
from inlay.specs.stage import KvLayer, StageShape

LAYERS = (
    KvLayer(key_heads=2, key_dim=4, value_heads=2, value_dim=6),
    KvLayer(key_heads=1, key_dim=8, value_heads=1, value_dim=2),
)
STAGE = StageShape(vocabulary=5, layers=LAYERS)
CAPACITIES = {40: 3, 100: 2}
"""Neither is a whole number of blocks of 16."""


class Rows:
    """Allocates [slot, head, token, dim] in host memory."""

    stored = "float32"

    def allocate(self, port: int, shape: tuple[int, ...]) -> Any:
        return HostBuffer.zeros(shape, "float32")


class Blocks:
    """Allocates [block][head][dim][token], copied in and out."""

    def __init__(self, stored: str) -> None:
        self.stored = stored

    def allocate(self, port: int, shape: tuple[int, ...]) -> Any:
        kept = np.dtype(ml_dtypes.bfloat16 if self.stored == "bfloat16" else np.float32)
        return ContraryBuffer(shape, "float32", blocked=True, stored=kept, lease=device_memory(None).take(1))


POOLS = {"rows": Rows(), "blocks": Blocks("float32"), "blocks of bfloat16": Blocks("bfloat16")}


def runner(name: str) -> ExtendRunner:
    return ExtendRunner(POOLS[name], STAGE, rooms=CAPACITIES, buckets=None)  # type: ignore[arg-type]


def fill(pool: ExtendRunner, name: str, slot: SlotAddress, rng: np.random.Generator) -> None:
    """Bits that the pool can hold, in all rows of a slot."""
    mask = 0xFFFF0000 if POOLS[name].stored == "bfloat16" else 0xFFFFFFFF
    pages = [
        tuple((rng.normal(size=(slot.capacity, heads, dim)).astype("f4").view("u4") & mask).view("f4") for heads, dim in shapes)
        for shapes in (((i.key_heads, i.key_dim), (i.value_heads, i.value_dim)) for i in LAYERS)
    ]
    pool.import_kv(slot, 0, pages)  # type: ignore[arg-type]


def bits(pages: Any) -> list[Any]:
    return [np.ascontiguousarray(page).view("u4") for pair in pages for page in pair]


@pytest.mark.parametrize("source", list(POOLS))
@pytest.mark.parametrize("destination", ["rows", "blocks"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_rows_go_from_any_pool_to_any_other_bit_by_bit_and_disturb_nothing_beside_them(source, destination, data) -> None:
    slots = st.sampled_from([SlotAddress(capacity, index) for capacity, rooms in CAPACITIES.items() for index in range(rooms)])
    at, to = data.draw(slots), data.draw(slots)
    start = data.draw(st.integers(0, min(at.capacity, to.capacity) - 1))
    count = data.draw(st.integers(1, min(at.capacity, to.capacity) - start))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    one, other = runner(source), runner(destination)
    fill(one, source, at, rng)
    for capacity, rooms in CAPACITIES.items():
        for index in range(rooms):
            fill(other, destination, SlotAddress(capacity, index), rng)
    before = {
        SlotAddress(capacity, index): bits(other.export_kv(SlotAddress(capacity, index), 0, capacity))
        for capacity, rooms in CAPACITIES.items()
        for index in range(rooms)
    }
    stored = POOLS[source].stored
    sent = one.export_kv(at, start, count)
    arrays, crcs = seal(sent, dtype=stored, edge=Edge(stored=stored))
    payload = b"".join(array.tobytes() for array in arrays)
    assert len(payload) == (2 if stored == "bfloat16" else 4) * count * STAGE.kv_elements_per_token()
    other.import_kv(to, start, unseal(memoryview(payload), crcs, LAYERS, count, dtype=stored))
    came = bits(other.export_kv(to, start, count))
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(bits(sent), came, strict=True))
    for slot, old in before.items():
        now = bits(other.export_kv(slot, 0, slot.capacity))
        for mine, theirs in zip(old, now, strict=True):
            if slot == to:
                mine, theirs = (np.delete(page, np.s_[start : start + count], axis=0) for page in (mine, theirs))
            assert np.array_equal(mine, theirs), slot
