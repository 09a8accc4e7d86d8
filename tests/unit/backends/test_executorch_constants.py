"""Weights of an ExecuTorch artifact: numbers found again wherever they were moved to, and files made of others."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from inlay.backends.executorch.constants import FIRST, Filling, Recipe, Source, is_telling, known_again, made, write_data
from inlay.errors import ArtifactError

SHAPES = ((7,), (4, 6), (5, 3, 2, 2), (1,))
COUNTS = np.array([int(np.prod(shape)) for shape in SHAPES])
STARTS = np.concatenate([[0], np.cumsum(COUNTS)[:-1]])
MOVES = {
    "as it is": lambda item: item[1],
    "turned": lambda item: item[1].T,
    "channels last": lambda item: item[2].transpose(0, 2, 3, 1),
    "groups": lambda item: item[2].reshape(5, 1, 3, 2, 2).transpose(0, 2, 1, 3, 4),
    "some rows": lambda item: item[1][1:3],
    "some columns": lambda item: item[1][:, 2:5],
    "one number": lambda item: item[3],
    "one of many": lambda item: item[0][4:5],
    "a column": lambda item: item[1][:, 3],
}


def telling() -> list[np.ndarray]:
    return [
        np.arange(FIRST + start, FIRST + start + count, dtype=np.int32).reshape(shape)
        for start, count, shape in zip(STARTS, COUNTS, SHAPES, strict=True)
    ]


@pytest.mark.parametrize("move", MOVES)
def test_numbers_are_known_again_wherever_they_were_moved_to_and_other_weights_put_in_their_place(
    move: str, tmp_path: Path
) -> None:
    seen = np.ascontiguousarray(MOVES[move](telling())).reshape(-1)
    found = known_again(seen, STARTS, COUNTS)
    assert found is not None
    source, start, shape, strides = found
    random = np.random.default_rng(1)
    weights = {str(index): random.standard_normal(shape).astype(np.float32) for index, shape in enumerate(SHAPES)}
    recipe = Recipe(
        size=64 + 4 * len(seen),
        sources=tuple(Source(kind="plain", weights=(str(index),)) for index in range(len(SHAPES))),
        fillings=(Filling(at=64, source=source, start=start, shape=shape, strides=strides),),
        inputs=(),
        delegates=(1,),
        portable=(0,),
    )
    (tmp_path / "head").write_bytes(b"h" * 64)
    file = io.BytesIO()
    write_data(file, tmp_path / "head", recipe, weights)
    written = np.frombuffer(file.getvalue()[64:], np.float32)
    expected = np.ascontiguousarray(MOVES[move](list(weights.values()))).reshape(-1)
    np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item[1] + 1000,
        lambda item: (item[1].view(np.float32) * 2).view(np.int32),
        lambda item: np.concatenate([item[0], item[3]]),
        lambda item: item[1].reshape(-1)[[0, 1, 3, 2]],
        lambda item: np.zeros(4, np.int32),
        lambda item: np.array([1.0, 0.5], np.float32).view(np.int32),
        lambda item: item[1][::-1],
    ],
)
def test_numbers_that_were_computed_with_or_mixed_are_not_taken_for_a_weight(change) -> None:
    assert known_again(np.ascontiguousarray(change(telling())).reshape(-1), STARTS, COUNTS) is None


def test_numbers_that_no_program_has_are_telling_also_where_two_were_added() -> None:
    item = telling()[1].view(np.float32)
    total = int(COUNTS.sum())
    assert is_telling(item, total) and is_telling(np.array([0.0, item[0, 0] + item[1, 1]], np.float32), total)
    harmless = np.array(
        [0.0, -1.0, 1e-12, 3e38, np.finfo(np.float32).tiny, np.inf, np.nan, np.finfo(np.float32).min], np.float32
    )
    assert not is_telling(harmless, total)


def test_a_batch_norm_folded_into_a_convolution_gives_what_the_two_give() -> None:
    random = np.random.default_rng(2)
    names = {"w": (4, 3), "b": (4,), "scale": (4,), "shift": (4,), "mean": (4,), "variance": (4,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in names.items()}
    weights["variance"] = np.abs(weights["variance"])
    x = random.standard_normal(3).astype(np.float32)
    for bias, scale, shift in (("b", "scale", "shift"), ("", "scale", "shift"), ("b", "", "")):
        plain = weights["w"] @ x + (weights[bias] if bias else 0)
        expected = (plain - weights["mean"]) / np.sqrt(weights["variance"] + 1e-3)
        if scale:
            expected = expected * weights[scale] + weights[shift]
        weight = made(Source(kind="folded weight", weights=("w", scale, "variance"), epsilon=1e-3), weights)
        moved = made(Source(kind="folded bias", weights=(bias, scale, shift, "mean", "variance"), epsilon=1e-3), weights)
        assert weight.dtype == moved.dtype == np.float32
        np.testing.assert_allclose(weight @ x + moved, expected, rtol=1e-5, atol=1e-6)


def test_a_head_that_is_missing_is_named(tmp_path: Path) -> None:
    recipe = Recipe(size=1, sources=(), fillings=(), inputs=(), delegates=(), portable=())
    with pytest.raises(ArtifactError, match=r"(?s)constants\.head.*lower it again"):
        write_data(io.BytesIO(), tmp_path / "constants.head", recipe, {})
