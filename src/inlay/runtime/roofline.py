"""What numpy and its BLAS make of a device: matrix products by dtype, and memory read, written and copied.

`main` is the program of a process pinned to the device's cores, which `runtime.machine` starts. Timing is `runtime.measure`'s.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inlay.backends import Array
from inlay.errors import OutOfMemoryError
from inlay.hardware import last_cache
from inlay.runtime.intervals import quartiles
from inlay.runtime.measure import seconds_of, time_runs
from inlay.specs.roofline import Spread

PRODUCT_SAMPLES = 9
MEMORY_SAMPLES = 11
LONGEST_PRODUCT = 0.5
FIRST_SIDE, LAST_SIDE = 256, 8192
SMALLEST_ARRAY, LARGEST_ARRAY = 256 << 20, 2 << 30
CACHES = 8  # an array is as large as so many last caches, so that next to nothing of it stays in one
FEWEST_CACHES = 4
NUMPY_PRODUCTS = ("float32", "float64")


class RooflineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of `main` and of `torch_products.main`: what to measure, with how many threads, and where to write it."""

    figures: tuple[str, ...]
    result: str
    threads: int = 1


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What such a process found: rates by figure, the sides of the matrices, and the bytes of the arrays gone through."""

    rates: dict[str, Spread] = {}
    sides: dict[str, int] = {}
    array: int = 0
    cache: int = 0
    absent: dict[str, str] = {}
    versions: dict[str, str] = {}


def main(config: dict[str, Any]) -> int:
    """Measure the figures of `config` (RooflineConfig), "float32", "float64" or "memory", and write them as Measured."""
    parsed = msgspec.convert(config, RooflineConfig)
    found = Measured(versions=numpy_versions())
    for figure in parsed.figures:
        if figure == "memory":
            found = measure_memory(found, threads=parsed.threads)
        else:
            side, rates = product_rates(lambda side, dtype=figure: numpy_product(side, dtype))  # type: ignore[misc]
            found.rates[figure], found.sides[figure] = rates, side
    write_measured(found, parsed.result)
    return 0


def product_rates(prepare: Callable[[int], Callable[[], object]]) -> tuple[int, Spread]:
    """Operations a second of a square product, at the largest side whose product stays within half a second, and that side.

    `prepare` gives the product of two new matrices of a side; it is called with growing sides.
    """
    side = FIRST_SIDE
    run = prepare(side)
    run()
    while side < LAST_SIDE and 8 * seconds_of(run) <= LONGEST_PRODUCT:
        side *= 2
        run = prepare(side)
        run()
    return side, rate_spread(2.0 * side**3, time_runs(run, samples=PRODUCT_SAMPLES))


def numpy_product(side: int, dtype: str) -> Callable[[], object]:
    """One product of standard normal matrices into a third one, by the BLAS that numpy was built with."""
    generator = np.random.default_rng(side)
    left, right = (generator.standard_normal((side, side)).astype(dtype) for _ in range(2))
    target = np.empty_like(left)
    return lambda: np.matmul(left, right, out=target)


def measure_memory(found: Measured, *, threads: int) -> Measured:
    """With bytes a second of one pass over arrays much larger than the last cache, each thread on a part of its own."""
    cores = sorted(os.sched_getaffinity(0))
    cache, available = last_cache(cores), available_memory()
    try:
        size = array_size(cache, available)
    except OutOfMemoryError as error:
        reasons = dict.fromkeys(("read", "write", "copy"), error.message)
        return msgspec.structs.replace(found, cache=cache, absent={**found.absent, **reasons})
    source, target = (np.ones(size // 8, np.int64) for _ in range(2))
    with ThreadPoolExecutor(threads) as pool:
        together = _together(pool, threads)
        passes: dict[str, tuple[int, Callable[[], object]]] = {
            "read": (size, together(lambda part, _: np.bitwise_or.reduce(part), source, target)),
            "write": (size, together(_fill, source, target)),
            "copy": (2 * size, together(lambda part, other: np.copyto(other, part), source, target)),
        }
        rates = {name: rate_spread(amount, time_runs(run, samples=MEMORY_SAMPLES)) for name, (amount, run) in passes.items()}
    return msgspec.structs.replace(found, rates={**found.rates, **rates}, array=size, cache=cache)


def array_size(cache: int, available: int) -> int:
    """Bytes of each of two arrays. Raises OutOfMemoryError where there is no room for some times the last cache."""
    wanted = max(min(max(CACHES * cache, SMALLEST_ARRAY), LARGEST_ARRAY), FEWEST_CACHES * cache)
    size = min(wanted, available // 4)
    least = max(FEWEST_CACHES * cache, SMALLEST_ARRAY // 4)
    if size < least:
        raise OutOfMemoryError(
            f"{available} bytes of memory are free, expected {4 * least}: two arrays of {least} bytes, and as much left"
        )
    return size // 4096 * 4096


def rate_spread(amount: float, seconds: Iterable[float]) -> Spread:
    """Amount a second, from seconds."""
    rates = [amount / item for item in seconds]
    low, median, high = quartiles(rates)
    return Spread(best=max(rates), median=median, low=low, high=high, samples=len(rates))


def numpy_versions() -> dict[str, str]:
    """What numpy's figures were taken with. The BLAS kernel in use is known only where threadpoolctl is installed."""
    versions = {"inlay": importlib.metadata.version("inlay"), "python": platform.python_version(), "numpy": np.__version__}
    versions["kernel"] = platform.release()
    built: Any = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {}) if isinstance(built, dict) else {}
    if blas.get("name"):
        versions["blas"] = f"{blas['name']} {blas.get('version', '')}".strip()
    if find_spec("threadpoolctl") is not None:
        loaded = import_module("threadpoolctl").threadpool_info()
        kernels = [str(item["architecture"]) for item in loaded if item.get("architecture")]
        if kernels:
            versions["blas kernel"] = kernels[0]
    return versions


def available_memory() -> int:
    """Bytes that can be had without swapping, as the kernel estimates them; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def write_measured(found: Measured, path: str) -> None:
    """Whole or not at all."""
    part = Path(path + ".part")
    part.write_bytes(msgspec.json.encode(found))
    part.replace(path)


def _together(
    pool: ThreadPoolExecutor, threads: int
) -> Callable[[Callable[[Array, Array], object], Array, Array], Callable[[], object]]:
    """Makes one pass out of a pass over a part: all parts at once, or without a pool where there is one thread."""

    def make(work: Callable[[Array, Array], object], source: Array, target: Array) -> Callable[[], object]:
        if threads == 1:
            return lambda: work(source, target)
        parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
        return lambda: [done.result() for done in [pool.submit(work, part, other) for part, other in parts]]

    return make


def _fill(_: Array, target: Array) -> None:
    ctypes.memset(target.ctypes.data, 1, target.nbytes)
