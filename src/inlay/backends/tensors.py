"""Host arrays as torch tensors over the same memory, and back. Used only by the executables that compute with torch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from inlay.backends.seam import Array
from inlay.models import numpy_dtype


def tensor_of(array: Array) -> Any:
    """A torch tensor over the array's memory, not copied; one over mapped, read-only memory must not be written."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        if array.dtype.name == "bfloat16":  # torch knows numpy's own types only
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def array_of(tensor: Any) -> Array:
    """A host array of a tensor in ordinary memory, C order; over the same memory where it is that already."""
    import torch

    whole = tensor.detach().contiguous()
    if whole.dtype == torch.bfloat16:
        found: Array = whole.view(torch.int16).numpy().view(numpy_dtype("bfloat16"))
        return found
    plain: Array = whole.numpy()
    return plain
