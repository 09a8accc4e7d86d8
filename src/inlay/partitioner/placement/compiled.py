"""Compiles a kernel with numba where that is installed; the same source runs as plain Python where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def compiled(kernel: Kernel) -> Kernel:
    """The kernel as machine code, kept on disk between processes; or the kernel itself."""
    try:
        import numba
    except ImportError:
        return kernel
    result: Kernel = numba.njit(cache=True, nogil=True)(kernel)
    return result


def is_compiled() -> bool:
    """Whether kernels run as machine code here."""
    try:
        import numba
    except ImportError:
        return False
    return bool(numba.__version__)
