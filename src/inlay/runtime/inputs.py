"""Random inputs that look like the example's: fresh for every check and every measurement. numpy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inlay.backends import Array
from inlay.graph import Tensor, shape_value
from inlay.models import numpy_dtype
from inlay.runtime.store import Sample


def random_inputs(
    inputs: Mapping[str, Tensor], *, sizes: Mapping[str, int], samples: Mapping[str, Sample], seed: int
) -> dict[str, Array]:
    """One array for each input, of these sizes.

    Floats are standard normal; integers are between the example's least and most, and integers that were 0 and 1 only
    become right-padded masks (at least one 1 a row), since a mask that hides everything has no defined result.
    """
    random = np.random.default_rng(seed)
    return {
        name: _random(random, shape_value(tensor.shape, sizes), tensor.dtype, samples.get(name))
        for name, tensor in inputs.items()
    }


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: str, sample: Sample | None) -> Array:
    kind = numpy_dtype(dtype)
    if dtype.startswith(("float", "bfloat")):
        return np.asarray(random.standard_normal(shape), dtype=np.float32).astype(kind)
    if dtype.startswith("complex"):
        return np.asarray(random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(kind)
    low, high = (0, 1) if sample is None else (int(sample.low), int(sample.high))
    if (low, high) == (0, 1) and shape:
        lengths = random.integers(1, shape[-1] + 1, size=shape[:-1])
        return np.asarray(np.arange(shape[-1]) < lengths[..., None]).astype(kind)
    return np.asarray(random.integers(low, high + 1, size=shape)).astype(kind)
