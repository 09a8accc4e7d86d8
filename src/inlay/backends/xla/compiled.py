"""Compile StableHLO, and keep what XLA made of it beside it. Used by `lower`, which writes, and by `execute`, which reads.

JAX keeps machine code in files of its own, found again by a digest over code, versions and flags. They are files of the
artifact like others: checked before they are read, and passed over where the CPU is another. Imports no SDK by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Compiled = Callable[..., Sequence[Any]]
NEVER = 1e9
"""So many seconds that no compilation takes: nothing is written."""


@contextmanager
def kept_beside(jax: Any, directory: Path, *, writes: bool) -> Iterator[None]:
    """What is compiled meanwhile is looked for in this folder, and put there where `writes` says so."""
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": 0.0 if writes else NEVER,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_persistent_cache_enable_xla_caches": "none",
    }
    before = {name: getattr(jax.config, name) for name in settings}
    compilation_cache.reset_cache()
    for name, value in settings.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def compile_code(jax: Any, code: Any, device: Any) -> Compiled:
    """Exported code as a function for one device, of all its arguments, also those that nothing reads."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(item.shape, item.dtype, sharding=sharding) for item in code.in_avals]
    found: Compiled = jax.jit(code.call, out_shardings=sharding).lower(*arguments).compile()
    return found


def limit_threads(threads: int) -> None:
    """Give XLA's pool, which a process makes once, so many threads; later calls change nothing."""
    os.environ.setdefault("NPROC", str(threads))
