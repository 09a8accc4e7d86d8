"""Weights that XNNPACK packs: where each lies in the data file beside the program, and how it is made of ours. No torch.

ExecuTorch keeps them in a file of its own format, under keys made of the bytes that they had while lowering. So lowering
gives it other bytes, by which every number is known again wherever it ends up, and keeps the head of that file with the
places of all numbers: `write_data` makes the file of any weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from inlay.backends.seam import Array
from inlay.errors import ArtifactError

FIRST = 0x01000000
"""Number n of all sources stands for itself as the float with the bits FIRST + n: numbers as small as these, 2e-38 and up,
are in no program, and the least normal one, which may be, is not among them."""
MOST = 0x7F800000 - FIRST
"""How many finite floats there are above."""
HEAD_FILE = "constants.head"
RECIPE_FILE = "constants.json"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor made of weights: one as it is, or those of a convolution with a batch norm folded in.

    `weights` are names, "" where the operator has none: (weight) for "plain"; (weight, scale, variance) for "folded
    weight"; (bias, scale, shift, mean, variance) for "folded bias".
    """

    kind: str
    weights: tuple[str, ...]
    epsilon: float = 0.0


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """A run of numbers of the data file, at a byte: a strided view of a source, `start` and `strides` counted in numbers."""

    at: int
    source: int
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How the data file is made, and what the artifact's methods are: the weights that each takes as leading inputs, the
    number of delegates and of operators left to the portable kernels. `size` is 0 where there is no data file."""

    size: int
    sources: tuple[Source, ...]
    fillings: tuple[Filling, ...]
    inputs: tuple[str, ...]
    delegates: tuple[int, ...]
    portable: tuple[int, ...]


def made(source: Source, weights: Mapping[str, Array]) -> Array:
    """The numbers of a source, float32 in C order. Folding is done in float64 and rounded once."""
    found = [weights[name] if name else None for name in source.weights]
    if source.kind == "plain":
        assert found[0] is not None
        return np.ascontiguousarray(found[0])
    scale, variance = found[1], found[-1]
    assert variance is not None
    factor = 1.0 / np.sqrt(variance.astype(np.float64) + source.epsilon)
    if scale is not None:
        factor = factor * scale.astype(np.float64)
    if source.kind == "folded weight":
        weight = found[0]
        assert weight is not None
        turned = factor.reshape(-1, *(1,) * (weight.ndim - 1))
        return np.ascontiguousarray((weight * turned).astype(np.float32))
    bias, _, shift, mean, _ = found
    assert mean is not None
    moved = ((0.0 if bias is None else bias.astype(np.float64)) - mean) * factor
    return np.ascontiguousarray((moved if shift is None else moved + shift).astype(np.float32))


def write_data(file: BinaryIO, head: Path, recipe: Recipe, weights: Mapping[str, Array]) -> None:
    """Write the data file of these weights. Raises ArtifactError where the head cannot be read."""
    try:
        file.write(head.read_bytes())
    except OSError as error:
        raise ArtifactError(f"artifact file {str(head)!r} cannot be read: {error}", hint="lower it again") from error
    by_source: dict[int, list[Filling]] = {}
    for filling in recipe.fillings:
        by_source.setdefault(filling.source, []).append(filling)
    for number, fillings in by_source.items():
        flat = made(recipe.sources[number], weights).reshape(-1)
        for filling in fillings:
            strides = tuple(stride * flat.itemsize for stride in filling.strides)
            view = np.lib.stride_tricks.as_strided(flat[filling.start :], filling.shape, strides, writeable=False)
            file.seek(filling.at)
            file.write(np.ascontiguousarray(view).data)
    file.truncate(recipe.size)
    file.flush()


def known_again(data: Array, starts: Array, counts: Array) -> tuple[int, int, tuple[int, ...], tuple[int, ...]] | None:
    """Source, start, shape and strides of numbers that were given as placeholders; None where they are not, or not alone.

    `data` holds the bits (int32) as ExecuTorch wrote them, `starts` the first number of each source, ascending, and
    `counts` how many it has.
    """
    index = data.astype(np.int64) - FIRST
    source = int(np.searchsorted(starts, index[0], side="right")) - 1
    if source < 0:
        return None
    index -= starts[source]
    if index.min() < 0 or index.max() >= counts[source]:
        return None
    start = int(index[0])
    shape, strides = _strided(index - start)
    flat = np.arange(int(counts[source]), dtype=np.int64)[start:]
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min(strides) < 0 or last >= len(flat):
        return None
    view = np.lib.stride_tricks.as_strided(flat, shape, tuple(8 * stride for stride in strides), writeable=False)
    return (source, start, shape, strides) if np.array_equal(view.reshape(-1), index) else None


def is_telling(data: Array, total: int) -> bool:
    """Whether one of these float32 numbers may be a placeholder, or the sum of a few, of `total` that there are."""
    most = np.array([FIRST + total], np.int32).view(np.float32)[0] * np.float32(4)
    least = np.array([FIRST], np.int32).view(np.float32)[0]
    size = np.abs(data)
    return bool(((size >= least) & (size <= most)).any())


def _strided(index: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of which these may be the offsets; whether they are is for the caller to look."""
    shape: list[int] = []
    strides: list[int] = []
    while len(index) > 1:
        step = int(index[1] - index[0])
        breaks = np.flatnonzero(np.diff(index) != step)
        run = int(breaks[0]) + 1 if len(breaks) else len(index)
        if len(index) % run:
            break
        shape.insert(0, run)
        strides.insert(0, step)
        index = index[::run]
    return tuple(shape) or (1,), tuple(strides) or (1,)
