"""What happens to the numbers of KV on their way: exact paths bit by bit, the others counted, refused or within their bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.engine.conversion import (
    check_readable,
    check_rope,
    fit,
    narrowed,
    pack,
    page_bytes,
    reorder_keys,
    unpack,
    wire_dtype,
)
from inlay.engine.heads import common_share, heads_of, own_heads
from inlay.engine.pages import Edge, seal, token_bytes, unseal
from inlay.errors import TransferError
from inlay.specs.kv import KvTransfer, Rope
from inlay.specs.stage import KvLayer

CODES = np.arange(65536, dtype=np.uint32)
BF16 = (CODES << 16).view(np.float32)
with np.errstate(invalid="ignore"):
    F16 = CODES.astype(np.uint16).view(np.float16).astype(np.float32)
HELD = {"float32": None, "bfloat16": BF16, "float16": F16}


def page_of(stored: str, rng: np.random.Generator, tokens: int, heads: int, dim: int) -> np.ndarray:
    """Any bit patterns that a pool of this dtype can hold; those of float32 that are numbers."""
    shape = (tokens, heads, dim)
    codes = HELD[stored]
    if codes is None:
        return rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)
    return codes[rng.integers(0, 65536, shape)]


def over_the_wire(page: np.ndarray, dtype: str, stored: str, *, lossy: bool = False) -> np.ndarray:
    parts = pack(page, dtype, stored=stored, lossy=lossy)
    raw = np.frombuffer(b"".join(part.tobytes() for part in parts), np.uint8)
    tokens, heads, dim = page.shape
    assert len(raw) == page_bytes(dtype, tokens=tokens, heads=heads, dim=dim)
    return unpack(raw, dtype, tokens=tokens, heads=heads, dim=dim)


def bits(page: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(page).view(np.uint32)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 17))


@given(sizes=sizes, stored=st.sampled_from(["float32", "bfloat16"]), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_what_a_pool_holds_arrives_bit_by_bit_in_a_float32_pool(sizes, stored, seed) -> None:
    page = page_of(stored, np.random.default_rng(seed), *sizes)
    came, changed = fit(over_the_wire(page, wire_dtype(stored, "stored", lossy=False), stored), stored, "float32", lossy=False)
    assert changed == 0 and np.array_equal(bits(came), bits(page))


def test_every_code_of_bfloat16_and_float16_survives_the_way_to_float32_and_back() -> None:
    for stored, codes in (("bfloat16", BF16), ("float16", F16)):
        numbers = codes[~np.isnan(codes)].reshape(-1, 1, 1)
        came = over_the_wire(numbers, stored, stored)
        assert np.array_equal(bits(came), bits(numbers))
        back, changed = narrowed(came, stored)
        assert changed == 0 and np.array_equal(bits(back.astype(np.float32)), bits(numbers))


def test_bfloat16_into_float16_counts_exactly_the_values_that_change_and_refuses_those_that_do_not_fit() -> None:
    finite = BF16[np.isfinite(BF16)]
    size = np.abs(finite)
    inside = finite[((size >= 2.0**-17) & (size <= 65504)) | (size == 0)]
    assert narrowed(inside.reshape(-1, 1, 1), "float16")[1] == 0
    small = finite[(size < 2.0**-17) & (size > 0)]
    with np.errstate(under="ignore"):
        expected = int(np.count_nonzero(small.astype(np.float16).astype(np.float32) != small))
    assert 0 < expected == narrowed(small.reshape(-1, 1, 1), "float16")[1]
    large = finite[size > 65504][:1].reshape(1, 1, 1)
    with pytest.raises(TransferError, match="do not fit float16") as caught:
        fit(large, "bfloat16", "float16", lossy=True)
    assert caught.value.cause == "overflow"
    with pytest.raises(TransferError, match="are not exact in float16") as caught:
        fit(small.reshape(-1, 1, 1), "bfloat16", "float16", lossy=False)
    assert caught.value.cause == "lossy"
    assert fit(small.reshape(-1, 1, 1), "bfloat16", "float16", lossy=True)[1] == expected


@pytest.mark.parametrize(
    ("dtype", "stored", "verdict"),
    [
        ("float32", "float32", ""),
        ("bfloat16", "float32", "bfloat16>float32"),
        ("float16", "float32", "float16>float32"),
        ("bfloat16", "float16", "bfloat16>float16"),
        ("float32", "bfloat16", None),
        ("float32", "float16", None),
        ("float16", "bfloat16", None),
        ("int8", "float32", None),
    ],
)
def test_what_may_lose_precision_needs_the_deployments_word_before_anything_travels(dtype, stored, verdict) -> None:
    if verdict is not None:
        assert check_readable(dtype, stored, lossy=False) == verdict
        return
    with pytest.raises(TransferError, match="does not allow") as caught:
        check_readable(dtype, stored, lossy=False)
    assert caught.value.cause == "lossy"
    assert check_readable(dtype, stored, lossy=True) == f"{dtype}>{stored}"


def test_a_source_asks_the_same_of_the_wire_and_an_unknown_dtype_is_refused() -> None:
    assert wire_dtype("bfloat16", "stored", lossy=False) == "bfloat16"
    assert wire_dtype("bfloat16", "float32", lossy=False) == "float32"
    assert wire_dtype("float32", "int8", lossy=True) == "int8"
    for stored, wanted in (("float32", "bfloat16"), ("float32", "int8"), ("float16", "bfloat16")):
        with pytest.raises(TransferError, match="does not allow"):
            wire_dtype(stored, wanted, lossy=False)
    for dtype, stored in (("float8", "float32"), ("float32", "int4")):
        with pytest.raises(TransferError, match="expected one of") as caught:
            check_readable(dtype, stored, lossy=True)
        assert caught.value.cause == "dtype"


def test_a_pool_that_says_bfloat16_and_gives_other_values_is_caught_at_the_source() -> None:
    page = np.full((2, 1, 3), 1.0 + 2.0**-10, np.float32)
    with pytest.raises(TransferError, match="that are none") as caught:
        pack(page, "bfloat16", stored="bfloat16", lossy=True)
    assert caught.value.cause == "lossy"


@given(sizes=sizes, seed=st.integers(0, 2**32), spread=st.floats(0, 12))
@settings(max_examples=100, deadline=None)
def test_int8_is_within_half_a_step_of_each_heads_own_scale(sizes, seed, spread) -> None:
    rng = np.random.default_rng(seed)
    page = (rng.normal(size=sizes) * 10.0 ** rng.uniform(-spread, spread, (1, sizes[1], 1))).astype(np.float32)
    page[:, 0] *= rng.integers(0, 2)  # sometimes a head of zeros
    came = over_the_wire(page, "int8", "float32", lossy=True)
    step = np.abs(page).max(axis=(0, 2), keepdims=True) / 127
    assert (np.abs(came - page) <= step * (0.5 + 1e-5)).all()


def test_numbers_that_are_not_finite_do_not_become_int8() -> None:
    for wrong in (np.inf, np.nan):
        with pytest.raises(TransferError, match="not finite") as caught:
            pack(np.array([[[1.0, wrong]]], np.float32), "int8", stored="float32", lossy=True)
        assert caught.value.cause == "overflow"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_every_byte_of_every_page_is_under_a_checksum_whatever_the_dtype(dtype) -> None:
    layers = (KvLayer(key_heads=2, key_dim=3, value_heads=1, value_dim=5),)
    rng = np.random.default_rng(1)
    pages = [(rng.normal(size=(4, 2, 3)).astype("f4"), rng.normal(size=(4, 1, 5)).astype("f4"))]
    arrays, crcs = seal(pages, dtype=dtype, edge=Edge(allowed=KvTransfer(lossy=True)))
    payload = b"".join(array.tobytes() for array in arrays)
    assert len(unseal(memoryview(payload), crcs, layers, 4, dtype=dtype)) == 1
    assert token_bytes(layers, dtype=dtype) == 11 * {"float32": 4, "int8": 1}.get(dtype, 2)
    for at in range(len(payload)):
        broken = bytearray(payload)
        broken[at] ^= 1 << at % 8
        with pytest.raises(TransferError, match="checksum"):
            unseal(memoryview(bytes(broken)), crcs, layers, 4, dtype=dtype)


def rotated(x: np.ndarray, angles: np.ndarray, convention: str) -> np.ndarray:
    """Rotary embedding written out, pairs named by the convention."""
    dims = x.shape[-1]
    pairs = [(i, i + dims // 2) if convention == "half" else (2 * i, 2 * i + 1) for i in range(dims // 2)]
    turned = x.copy()
    for (a, b), angle in zip(pairs, angles, strict=True):
        turned[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
        turned[..., b] = x[..., a] * np.sin(angle) + x[..., b] * np.cos(angle)
    return turned


@pytest.mark.parametrize(("into", "other"), [("half", "interleaved"), ("interleaved", "half")])
def test_keys_of_the_other_convention_come_out_as_if_they_had_been_turned_in_this_one(into, other) -> None:
    rng = np.random.default_rng(4)
    plain, angles = rng.normal(size=(5, 3, 8)), rng.normal(size=4)
    theirs = rotated(plain, angles, other)
    ours = rotated(reorder_keys(plain, into=into), angles, into)
    assert np.array_equal(reorder_keys(theirs, into=into), ours)
    assert np.array_equal(reorder_keys(reorder_keys(theirs, into=into), into=other), theirs)


def test_of_keys_that_turn_in_part_only_that_part_is_put_in_another_order() -> None:
    keys = np.arange(6.0).reshape(1, 1, 6)
    assert reorder_keys(keys, into="half", dims=4).ravel().tolist() == [0, 2, 1, 3, 4, 5]
    assert reorder_keys(keys, into="interleaved", dims=4).ravel().tolist() == [0, 2, 1, 3, 4, 5]


def test_keys_turned_otherwise_are_refused_and_only_a_known_order_is_converted() -> None:
    half, interleaved = Rope(convention="half", theta=1e4), Rope(convention="interleaved", theta=1e4)
    assert not check_rope(half, half) and check_rope(half, interleaved) and check_rope(interleaved, half)
    for theirs in (
        Rope(convention="half", theta=5e5),
        Rope(convention="half", theta=1e4, scaling="yarn"),
        Rope(convention="half", theta=1e4, applied=False),
        Rope(convention="half", theta=1e4, dims=4),
        Rope(convention="", theta=1e4),
    ):
        with pytest.raises(TransferError) as caught:
            check_rope(theirs, half)
        assert caught.value.cause == "rope"


@given(sources=st.integers(1, 9), destinations=st.integers(1, 9), heads=st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_whatever_the_degrees_every_destination_gets_all_its_heads_from_sources_that_have_them(
    sources, destinations, heads
) -> None:
    for j in range(destinations):
        mine = (j, j + 1, destinations)
        got: set[int] = set()
        for i in range(sources):
            theirs = (i, i + 1, sources)
            part = common_share(theirs, mine)
            if part is not None:
                travels = heads_of(part, heads)
                held, wanted = heads_of(theirs, heads), heads_of(mine, heads)
                assert list(travels) == list(held)[own_heads(part, theirs, heads)] == list(wanted)[own_heads(part, mine, heads)]
                got |= set(travels)
        assert got == set(heads_of(mine, heads))


def test_a_head_that_a_process_does_not_own_is_refused() -> None:
    for travels, own in itertools.product([(0, 1, 2), (0, 1, 1)], [(1, 2, 2)]):
        with pytest.raises(TransferError, match="travel, expected some of 4 to 8") as caught:
            own_heads(travels, own, 8)
        assert caught.value.cause == "heads"
